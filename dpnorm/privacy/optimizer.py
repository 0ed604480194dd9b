"""The optimizer of a private training: clips, adds up, releases jointly with noise, and steps."""

import math
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.gradients.factors import Samples, joined, row_norms, without
from dpnorm.gradients.memory import Workspace
from dpnorm.privacy.bundles import bundled
from dpnorm.privacy.clipping import AdaptiveClipping, FlatClipping
from dpnorm.privacy.grad_sample import NOT_FINITE
from dpnorm.privacy.joint import split_noise
from dpnorm.privacy.ledger import Release
from dpnorm.privacy.noise import noise_like, with_noise
from dpnorm.privacy.statistics import StatisticsRelease


class ReleaseObserver(Protocol):
    """Who audits the releases of a training from inside.

    It may add gradients of further records, and it sees what is released.
    """

    def before_clipping(self, optimizer: "PrivateOptimizer") -> None:
        """The gradients of a batch's records, or of a part of them, are there."""

    def after_noise(self, optimizer: "PrivateOptimizer") -> None:
        """The noisy sum of the logical batch is in `.grad`, divided by `optimizer.divisor`."""


class PrivateOptimizer(DPOptimizer):
    """Opacus's optimizer with one release a logical batch of all that the step learns from data.

    What is released: the sum of the clipped gradients, and where the model has layers with private
    statistics the sum of what the clipped records say of them; with adaptive clipping also a count.
    All come from one batch, each with noise of its own, so that `noise_multiplier` is that of one
    Gaussian (`dpnorm.privacy.joint`) and is what is accounted. Sums are divided by the expected
    number of records.

    A record whose gradient, or whose vector of statistics, is not finite adds nothing to either.
    The alternative, an error, would make it visible outside that such a record was in the batch;
    dropped, the release stays a function of each record of norm at most the clipping norm, and no
    account is needed. How many were dropped is in `dropped_records`, for whoever holds the data: it
    is not private and is not to be published. Under ghost clipping a record cannot be left out of
    a backward pass, and an InputError is raised instead.

    Args:
        optimizer: that takes the step.
        noise_multiplier: of all releases of a step together.
        max_grad_norm: the clipping norm of the gradient.
        expected_batch_size: of this process.
        loss_reduction: "mean" or "sum".
        clipping: how gradients are clipped.
        generator: of the noise.
        secure_mode: as Opacus's.
        statistics: of layers with private statistics.
        statistics_noise_ratio: noise of the statistics over that of the gradients.
        ghost: Opacus's module or hooks that clip in the backward pass; else None.
        distributed: whether other processes hold other records of the batch.
        after_step: called once a step was taken.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        loss_reduction: str = "mean",
        clipping: FlatClipping | None = None,
        generator: torch.Generator | None = None,
        secure_mode: bool = False,
        statistics: StatisticsRelease | None = None,
        statistics_noise_ratio: float | None = None,
        ghost: Any = None,
        distributed: bool = False,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._ghost = ghost
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction=loss_reduction,
            generator=generator,
            secure_mode=secure_mode,
        )
        self.clipping = FlatClipping() if clipping is None else clipping
        self.statistics = statistics
        self.statistics_noise_ratio = statistics_noise_ratio
        self.dropped_records = 0
        self.observer: ReleaseObserver | None = None
        self._after_step = after_step
        self.rank, self.world_size = 0, 1
        if distributed:
            self.rank = torch.distributed.get_rank()
            self.world_size = torch.distributed.get_world_size()
        self._clipped: dict[nn.Parameter, Tensor] | None = None  # under ghost clipping
        self._largest_clip = 0.0  # by which a chunk of the logical batch was clipped
        self._judged = {id(p) for p in self.params}
        self._memory = Workspace()
        self._stepping = False
        self._batches = 1  # how many are in the step
        self._noisy_statistics: Tensor | None = None
        self._noisy_count: Tensor | None = None
        self.noises()  # raises where the noise cannot be split

    @property
    def max_grad_norm(self) -> float:
        return self._clip

    @max_grad_norm.setter
    def max_grad_norm(self, clip: float) -> None:
        if not (clip > 0 and math.isfinite(clip)):
            raise InputError(f"the clipping norm is {clip}: it is to be finite and above 0")
        self._clip = float(clip)
        if self._ghost is not None:
            self._ghost.max_grad_norm = self._clip

    @property
    def accumulated_iterations(self) -> int:
        if self._ghost is not None:
            return 1
        (batches,) = {len(_parts(p)) for p in self.params}
        return batches

    @property
    def divisor(self) -> float:
        """By what the noisy sum of gradients of a step is divided in this process."""
        if self.loss_reduction == "mean":
            return self.expected_batch_size * self._batches
        return 1.0

    def noises(self) -> tuple[float, float]:
        """The noise multipliers of gradients and statistics; the latter 0 where there are none."""
        total = self.noise_multiplier
        if not (total >= 0 and math.isfinite(total)):
            raise InputError(f"the noise multiplier is {total}: it is to be finite, at least 0")
        gradient, statistics = total, 0.0
        if self.statistics is not None:
            assert self.statistics_noise_ratio is not None
            gradient, statistics = split_noise(total, self.statistics_noise_ratio)
        return self.clipping.gradient_noise(gradient), statistics

    def releases(self) -> tuple[Release, ...]:
        """What a step releases."""
        gradient, statistics = self.noises()
        moves = isinstance(self.clipping, AdaptiveClipping)
        clip = None if moves else max(self._largest_clip, self.max_grad_norm)
        found = [Release("the sum of clipped gradients", gradient, clip)]
        if self.statistics is not None:
            name = "the sum of clipped statistics of the normalization layers"
            found.append(Release(name, statistics, self.statistics.clip))
        if self.clipping.count_std:
            name = "the number of records below the clipping norm, less half of the records"
            found.append(Release(name, 2 * self.clipping.count_std, 0.5))
        return tuple(found)

    def begin_pass(self) -> None:
        """Drops what a pass over the data that was left early has not released.

        The records of a logical batch that was summed in part would count twice in the next one.
        """
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False
        self._clipped = None
        self._largest_clip = 0.0
        self.clipping.take_count()
        if self.statistics is not None:
            self.statistics.reset()
        for p in self.params:
            p.summed_grad = None
            p.grad_sample = None

    def take_empty_batch(self) -> None:
        """Stands in the place of a backward pass where a batch holds no record."""
        for p in self.params:
            p.grad_sample = p.new_zeros((0, *p.shape))
        if self._ghost is not None:
            self._clipped = {p: torch.zeros_like(p) for p in self.params}
        if self.statistics is not None:
            self.statistics.offer(self.statistics.vectors({}, 0), beside=False)

    def offer_clipped(self, gradients: dict[nn.Parameter, Tensor]) -> None:
        """A backward pass under ghost clipping is over: its clipped sums wait for the step."""
        if self._clipped is not None:
            raise InputError(
                "a second backward pass came before optimizer.step(), and ghost clipping keeps "
                "one: step after each, or take grad_sample_mode='hooks'"
            )
        self._clipped = gradients
        self._largest_clip = max(self._largest_clip, self.max_grad_norm)

    def zero_grad(self, set_to_none: bool = False) -> None:
        super().zero_grad(set_to_none)
        self._clipped = None
        if self.statistics is not None:
            self.statistics.forget()

    def __getstate__(self) -> Any:
        raise InputError(
            "a private optimizer is not copied or pickled, since its account is its engine's: "
            "save a checkpoint with PrivacyEngine.save_checkpoint, or copy the model"
        )

    def pre_step(self, closure: Any = None) -> bool:
        self._require_gradients()
        self._batches = self.accumulated_iterations
        if self.observer is not None:
            self.observer.before_clipping(self)
        self.clip_and_accumulate()
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return False
        self.add_noise()
        if self.observer is not None:
            self.observer.after_noise(self)
        if self.step_hook:
            self.step_hook(self)
        self._is_last_step_skipped = False
        self._largest_clip = 0.0
        return True

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.pre_step():
            return loss
        self._reduce()
        self._publish()
        self._stepping = True
        try:
            self.original_optimizer.step()
        finally:
            self._stepping = False
        if self._after_step is not None:
            self._after_step()
        return loss

    def _require_gradients(self) -> None:
        """Raises an InputError where there is nothing to step by, or it was stepped by already."""
        if {id(p) for p in self.params} != self._judged:
            raise InputError(
                "the optimizer has other trainable parameters than when the model was made "
                "private: add them first, and call make_private then, with a new engine"
            )
        if self._ghost is not None:
            if self._clipped is None:
                raise InputError(
                    "there are no clipped gradients to step by: call the criterion that "
                    "make_private returned, and backward() of what it gives, before "
                    "optimizer.step()"
                )
            return
        for p in self.params:
            if any(hasattr(part, "_processed") for part in _parts(p)):
                raise InputError(
                    "these gradients were stepped by already: call optimizer.zero_grad() before "
                    "each backward pass"
                )

    def clip_and_accumulate(self) -> None:
        if self._ghost is not None:
            self._accumulate_clipped()
            return
        samples = [joined(_parts(p)) for p in self.params]
        bundles = bundled(self.params, samples, apart=self.clipping.apart)
        device = samples[0].device
        norms = torch.stack([row_norms(bundle.samples).to(device) for bundle in bundles])
        usable = norms.sum(0).isfinite()
        if self.statistics is not None:
            usable = usable & self.statistics.waiting().isfinite().all(1).to(device)
        dropped = len(usable) - int(usable.sum())
        if dropped:
            self.dropped_records += dropped
            norms = norms.masked_fill(~usable, 0.0)
        self._largest_clip = max(self._largest_clip, self.max_grad_norm)
        factors = self.clipping.factors(norms, self.max_grad_norm)
        for bundle, factor in zip(bundles, factors, strict=True):
            kept = without(bundle.samples, usable) if dropped else bundle.samples
            for p, total in zip(bundle.parameters, bundle.sums(kept, factor), strict=True):
                _add(p, total)
        for p in self.params:
            for part in _parts(p):
                part._processed = True  # type: ignore[union-attr]
        if self.statistics is not None:
            self.statistics.accumulate(usable)

    def _accumulate_clipped(self) -> None:
        """Ghost clipping: the gradients are sums of clipped ones already."""
        if self.statistics is not None:
            usable = self.statistics.waiting().isfinite().all(1)
            if not bool(usable.all()):
                raise InputError(NOT_FINITE)
            self.statistics.accumulate(usable)
        clipped, self._clipped = self._clipped or {}, None
        for p in self.params:
            _add(p, _wide(clipped[p]))

    def add_noise(self) -> None:
        """Draws the noise of all releases; `.grad` is then the noisy sum over the divisor."""
        gradient, statistics = self.noises()
        alike: dict[tuple[torch.device, torch.dtype], list[Any]] = {}
        for p in self.params:
            _check_processed_flag(p.summed_grad)
            alike.setdefault((p.summed_grad.device, p.summed_grad.dtype), []).append(p)
        for those in alike.values():
            totals = [p.summed_grad for p in those]
            noisy = with_noise(
                totals,
                self._own_std(gradient * self._largest_clip),
                self.generator,
                self._memory,
                divisor=self.divisor,
                secure=self.secure_mode,
            )
            for p, found in zip(those, noisy, strict=True):
                p.grad = found.to(p.dtype)
                _mark_as_processed(p.summed_grad)
        if self.statistics is not None:
            total = self.statistics.take_sum()
            self._noisy_statistics = self._noised(total, statistics * self.statistics.clip)
        count = self.clipping.take_count()
        if count is not None:
            exact = torch.tensor([count], device=self.params[0].device)
            self._noisy_count = self._noised(exact, self.clipping.count_std)

    def _noised(self, exact: Tensor, std: float) -> Tensor:
        own = self._own_std(std)
        return exact + noise_like(exact, own, self.generator, secure=self.secure_mode)

    def scale_grad(self) -> None:
        """Does nothing: `add_noise` has divided."""

    def _own_std(self, std: float) -> float:
        """The standard deviation of what this process draws.

        The first draws all noise, so that the sum over the processes has it once.
        """
        return std if self.rank == 0 and self.noise_multiplier else 0.0

    def _reduce(self) -> None:
        """Adds up what the processes have; nothing is moved by it before."""
        if self.world_size == 1:
            return
        for p in self.params:
            torch.distributed.all_reduce(p.grad)
            if self.loss_reduction == "mean":
                p.grad /= self.world_size
        for noisy in (self._noisy_statistics, self._noisy_count):
            if noisy is not None:
                torch.distributed.all_reduce(noisy)

    def _publish(self) -> None:
        """Moves statistics and clipping norm by what was released."""
        expected = self.expected_batch_size * self._batches * self.world_size
        if self.statistics is not None:
            assert self._noisy_statistics is not None
            _, sigma = self.noises()
            self.statistics.publish(self._noisy_statistics, expected=expected, sigma=sigma)
            self._noisy_statistics = None
        if isinstance(self.clipping, AdaptiveClipping):
            assert self._noisy_count is not None
            self.max_grad_norm = self.clipping.moved(
                self.max_grad_norm, float(self._noisy_count) / self._batches / self.world_size
            )
            self._noisy_count = None


def _parts(parameter: nn.Parameter) -> list[Samples]:
    """The records' gradients of a parameter, a part for each batch that was run backward.

    Raises:
        InputError: there are none.
    """
    found = getattr(parameter, "grad_sample", None)
    if found is None:
        raise InputError(
            "there are no gradients of records to step by: run the model that make_private "
            "returned forward, in training mode, and backward before optimizer.step()"
        )
    return found if isinstance(found, list) else [found]


def _wide(gradient: Tensor) -> Tensor:
    """In float32 at least: half precision would round sums by more than noise hides."""
    return gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient


def _add(parameter: Any, total: Tensor) -> None:
    """Adds one chunk more to the sum of a logical batch; one that was released is over.

    Whoever clears gradients by `model.zero_grad()` leaves the released sum where it is.
    """
    summed = parameter.summed_grad
    over = summed is None or hasattr(summed, "_processed")
    parameter.summed_grad = total if over else summed + total


def guard(owner: PrivateOptimizer) -> None:
    """Lets the optimizer that takes the steps be stepped by its owner alone.

    Its parameters hold gradients without clipping and noise after a backward pass.
    """
    optimizer: Any = owner.original_optimizer
    guarded = hasattr(optimizer, "_private_owner")
    optimizer._private_owner = weakref.ref(owner)

    def require_owner(optimizer: Any, args: Any, kwargs: Any) -> None:
        present = optimizer._private_owner()
        if present is not None and not present._stepping:
            raise InputError(
                "this optimizer was made private, and its own step() knows no clipping and no "
                "noise: step the one that make_private returned"
            )

    if not guarded:
        optimizer.register_step_pre_hook(require_owner)
