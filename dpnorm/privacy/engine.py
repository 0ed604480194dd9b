"""A drop-in for opacus.PrivacyEngine that trains what `check` proves, and only that."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import opacus
import torch
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from opacus.grad_sample import GradSampleModuleExpandedWeights
from torch import nn
from torch.utils.data import DataLoader

from dpnorm.detection import Report
from dpnorm.detection.inputs import Inputs, check_device
from dpnorm.detection.loss_probes import Criterion
from dpnorm.errors import InputError, unknown_name
from dpnorm.norms import released_statistics
from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_of, noise_for
from dpnorm.privacy.admission import Allow, require_allowed
from dpnorm.privacy.arguments import (
    ADAPTIVE,
    OPTIONS,
    arguments_of,
    is_number,
    plain_norms,
    require_known,
    require_no_target,
    require_noise,
    require_positive,
    require_possible,
)
from dpnorm.privacy.booking import Booking
from dpnorm.privacy.clipping import (
    CLIPPINGS,
    AdaptiveClipping,
    Clipping,
    FlatClipping,
    PerLayerClipping,
)
from dpnorm.privacy.consistency import require_consistent
from dpnorm.privacy.draws import draws_at_random
from dpnorm.privacy.ghost import GhostLoss
from dpnorm.privacy.grad_sample import MODES, hooks_for
from dpnorm.privacy.judging import (
    example_batch,
    inputs_and_targets,
    judged,
    require_expanded_weights,
    require_finite,
    require_once,
    require_records,
    require_trainable,
    require_whole,
)
from dpnorm.privacy.ledger import Ledger
from dpnorm.privacy.optimizer import PrivateOptimizer, guard
from dpnorm.privacy.public import PublicRecords
from dpnorm.privacy.record_loss import RecordLoss
from dpnorm.privacy.resume import load_training, save_training
from dpnorm.privacy.rollback import unchanged_on_error
from dpnorm.privacy.sampling import (
    AnnouncedBatches,
    PoissonSampler,
    announced_loader,
    poisson_loader,
)
from dpnorm.privacy.sources import Sources
from dpnorm.privacy.statement import (
    AUGMENTATION,
    DRAWS,
    PrivacyStatement,
    origin_of,
    statement_of,
)
from dpnorm.privacy.statistics import StatisticsRelease

Origin = Literal["public", "private", "random", "unknown"]
ORIGINS = ("public", "private", "random", "unknown")
RATIO = 4.0  # noise of the statistics over that of the gradients, where nothing else is said


class PrivacyEngine(opacus.PrivacyEngine):
    """Makes a model, an optimizer and a data loader private, as Opacus's engine does.

    What differs: the model is judged by `check` and refused unless it is proven; output gradients
    are captured by tensor hooks, so that in-place operations do no harm; rows that a module folds
    into the batch (windows, time steps) are put together to one gradient a record before anything
    is clipped; constant buffers may stand beside parameters; layers with private statistics
    (`dpnorm.norms.PrivateBatchNorm`) release them with the gradients, under one account; fixed
    batches (poisson_sampling=False) are accounted without amplification by sampling, and for twice
    the sensitivity, since a record more or less moves others to other batches; noise and sampling
    come from the operating system's entropy unless a seed is asked for; checkpoints hold no pickle,
    and hold the ledger.

    Formal guarantee: (epsilon, delta) of `get_epsilon` for adding or removing one record, for the
    weights and the statistics after each of the steps that were taken, if the model was proven and
    with its loss (`criterion`). `statement` says what was.

    Args:
        accountant: "prv", "rdp" or "pld". Opacus's "gdp" is refused: it is no upper bound.
        secure_mode: as in Opacus.
        ledger: of earlier runs on the same records; this run is added to it.
        run: the name of this run in the ledger; by default "run 1", "run 2", ...
    """

    def __init__(
        self,
        *,
        accountant: str = "prv",
        secure_mode: bool = False,
        ledger: Ledger | None = None,
        run: str | None = None,
    ) -> None:
        if accountant not in ACCOUNTANTS:
            raise unknown_name("accountant", accountant, ACCOUNTANTS)
        super().__init__(accountant=accountant, secure_mode=secure_mode)
        if not (ledger is None or isinstance(ledger, Ledger)):
            raise InputError(
                f"ledger is a {type(ledger).__name__}: pass the ledger of another engine, or "
                "dpnorm.privacy.Ledger.load(path)"
            )
        self.ledger = Ledger() if ledger is None else ledger
        self.run = self.ledger.take_name(run)
        self._delta: float | None = None
        self._forget()

    def _forget(self) -> None:
        """Nothing was made private yet."""
        self._report: Report | None = None
        self._facts: dict[str, Any] = {}
        self._optimizer: PrivateOptimizer | None = None
        self._statistics: StatisticsRelease | None = None
        self._public: PublicRecords | None = None
        self._example: Any = None
        self._wrapped: Any = None
        self._hooks: Any = None
        self._sampler: PoissonSampler | AnnouncedBatches | None = None
        self._sources: Sources | None = None
        self._booking: Booking | None = None
        self.resumed = False  # whether a checkpoint was loaded
        self._terms: dict[str, Any] = {}

    @contextlib.contextmanager
    def _nothing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader,
        noise_multiplier: float,
        max_grad_norm: float | list[float],
        criterion: Criterion | None = None,
        sample_inputs: Inputs | None = None,
        allow: Allow = None,
        loss_reduction: Literal["mean", "sum"] = "mean",
        grad_sample_mode: str = "hooks",
        poisson_sampling: bool = True,
        clipping: Clipping = "flat",
        statistics_noise_ratio: float = RATIO,
        statistics_clip: float = 1.0,
        public_inputs: Inputs | None = None,
        seed: int | None = None,
        weights_origin: Origin = "unknown",
        statistics_origin: Origin = "unknown",
        **options: Any,
    ) -> Any:
        """Judges the model, and returns what Opacus's `make_private` returns.

        Args:
            module: in training mode, as it will be trained; or Opacus's DPDDP around it.
            optimizer: over the module's trainable parameters.
            data_loader: of the private records.
            noise_multiplier: of all that a step releases, as if it were one Gaussian: standard
                deviation over sensitivity. This is what is accounted.
            max_grad_norm: the clipping norm; with clipping "per_layer" one for each parameter.
            criterion: (output, targets) -> scalar loss. Without it the loss is not judged, and the
                statement says so; mode "ghost" then takes cross entropy.
            sample_inputs: records (B, ...) to judge the model on; default the first ones of the
                data loader, whose batches are then taken for (inputs, targets).
            allow: "unproven" or "refuted" trains what check does not prove.
            loss_reduction: "mean" or "sum", that of the loss.
            grad_sample_mode: "hooks", "functorch", "ghost", "lean", or "ew" for Opacus's own.
            poisson_sampling: False leaves the batches as they are.
            clipping: "flat", "per_layer", or "adaptive" with Opacus's five arguments for it.
            statistics_noise_ratio: r, the noise of private statistics over that of the gradients,
                in units of the two clipping norms: the gradients get noise_multiplier *
                sqrt(1 + 1 / r^2), the statistics noise_multiplier * sqrt(1 + r^2). Only for models
                with layers that release statistics.
            statistics_clip: the norm to which what a record says of the statistics is clipped.
            public_inputs: public records for models with `PublicBatchNorm` layers.
            seed: makes sampling and noise reproducible, which is for experiments only.
            weights_origin: what the initial weights came from: "public" or "private" records, or
                "random" numbers. No account covers them; the statement says what they are.
            statistics_origin: the same of the initial statistics of normalization layers.
            options: `noise_generator` and `wrap_model`, as Opacus takes them.

        Raises:
            InputError: an argument that is not what is needed, such as a module in evaluation mode
                or an optimizer over other parameters.
            RefusedError: check does not prove the model, or a parameter has no gradient a record.
        """
        if grad_sample_mode not in (*MODES, "ew"):
            raise unknown_name("grad_sample_mode", grad_sample_mode, (*MODES, "ew"))
        if clipping not in CLIPPINGS:
            raise unknown_name("clipping", clipping, CLIPPINGS)
        for origin in (weights_origin, statistics_origin):
            if origin not in ORIGINS:
                raise unknown_name("origin", origin, ORIGINS)
        require_no_target(options)
        require_known(options, OPTIONS, arguments_of(PrivacyEngine.make_private))
        self._require_unused()
        require_allowed(allow)
        require_possible(options, grad_sample_mode, clipping, loss_reduction)
        sources = Sources(seed, options.pop("noise_generator", None), self.secure_rng)
        require_trainable(module, optimizer)
        require_records(data_loader)
        if poisson_sampling:
            require_whole(data_loader)
        else:
            require_once(data_loader)
        trainable = [p for group in optimizer.param_groups for p in group["params"]]
        trainable = [p for p in trainable if p.requires_grad]
        require_noise(noise_multiplier, max_grad_norm, len(trainable))
        require_positive("statistics_noise_ratio", statistics_noise_ratio)
        require_positive("statistics_clip", statistics_clip)
        if isinstance(max_grad_norm, (list, tuple)) != (clipping == "per_layer"):
            raise InputError(
                f"max_grad_norm is {max_grad_norm!r} and clipping {clipping!r}: a list of clipping "
                "norms goes with clipping='per_layer', one number with the others"
            )
        with unchanged_on_error(module), self._nothing_on_error():
            distributed = _is_distributed(module)
            if distributed:
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)
            self._wrapped, self._sources = module, sources
            self._facts = {
                "distributed": distributed,
                "ratio": statistics_noise_ratio,
                "weights_origin": weights_origin,
                "statistics_origin": origin_of(module, statistics_origin),
                "ghost": grad_sample_mode == "ghost",
                "ignores": loss_reduction == "mean"
                and getattr(criterion, "ignore_index", None) is not None,
            }
            self._public = PublicRecords(module, public_inputs, shared=distributed)
            self._report = self._judged(
                data_loader, sample_inputs, criterion, loss_reduction, allow, grad_sample_mode
            )
            if released_statistics(module):
                self._statistics = StatisticsRelease(
                    module, self._report.rows, clip=statistics_clip
                )
            made = super().make_private(
                module=module,
                optimizer=optimizer,
                criterion=_for_mode(criterion, grad_sample_mode, loss_reduction),
                data_loader=data_loader,
                noise_multiplier=noise_multiplier,
                max_grad_norm=max_grad_norm,
                loss_reduction=loss_reduction,
                grad_sample_mode=grad_sample_mode,
                poisson_sampling=poisson_sampling,
                clipping=clipping,
                **options,
            )
            self._terms = {
                "noise_multiplier": float(noise_multiplier),
                "max_grad_norm": plain_norms(max_grad_norm),
                "sampling_rate": 1 / len(data_loader),
                "expected_batch_size": made[1].expected_batch_size,
                "poisson_sampling": poisson_sampling,
                "clipping": clipping,
                **{name: options.get(name) for name in ADAPTIVE},
                "loss_reduction": loss_reduction,
                "statistics_noise_ratio": statistics_noise_ratio if self._statistics else None,
                "statistics_clip": statistics_clip if self._statistics else None,
            }
            assert self._sampler is not None
            self._booking = Booking(
                self.ledger,
                self.run,
                self.accountant,
                rate=1 / len(data_loader),
                poisson=poisson_sampling,
                sampler=self._sampler,
            )
            self._booking.attach(made[1])
            guard(made[1])
        return made

    def make_private_with_epsilon(
        self,
        *,
        data_loader: DataLoader,
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        poisson_sampling: bool = True,
        **options: Any,
    ) -> Any:
        """`make_private` with the noise that reaches an epsilon after so many epochs.

        Args:
            data_loader: of the private records.
            target_epsilon: the budget, of this run together with those that the ledger holds.
            target_delta: the probability with which the guarantee may fail.
            epochs: passes over the data loader.
            poisson_sampling: as in `make_private`.
            options: of `make_private`.

        Raises:
            InputError: the budget cannot be reached, or is spent already.
        """
        self._require_unused()
        require_records(data_loader)
        if "noise_multiplier" in options:
            raise InputError(
                f"noise_multiplier is {options['noise_multiplier']!r} and target_epsilon "
                f"{target_epsilon!r}: the noise follows from the budget; give one of them "
                "(make_private takes a noise multiplier)"
            )
        require_positive("target_epsilon", target_epsilon)
        if not (is_number(target_delta) and 0 < target_delta < 1):
            raise InputError(
                f"target_delta is {target_delta!r}: it is to be above 0 and below 1, best below "
                "1 / (number of records)"
            )
        if not (is_number(epochs) and epochs >= 1 and int(epochs) == epochs):
            raise InputError(f"epochs is {epochs!r}: it is to be a whole number of at least 1")
        noise = noise_for(
            epsilon=target_epsilon,
            sampling_rate=1 / len(data_loader) if poisson_sampling else 1.0,
            steps=int(epochs) * len(data_loader),
            delta=target_delta,
            accountant=self.accountant.mechanism(),
            before=tuple(self.ledger.history()),
        ) * (1 if poisson_sampling else 2)
        made = self.make_private(
            data_loader=data_loader,
            noise_multiplier=noise,
            poisson_sampling=poisson_sampling,
            **options,
        )
        self._delta = target_delta
        return made

    def get_epsilon(self, delta: float) -> float:
        """An upper bound on the epsilon that this run has spent so far, at `delta`."""
        return epsilon_of(
            self.accountant.history, delta=delta, accountant=self.accountant.mechanism()
        )

    def statement(self, delta: float | None = None) -> PrivacyStatement:
        """What the steps that were taken guarantee, in full.

        Args:
            delta: default the target delta of `make_private_with_epsilon`.

        Raises:
            InputError: nothing was made private yet, or no delta is known.
        """
        delta = self._delta if delta is None else delta
        if self._report is None or self._optimizer is None or delta is None:
            missing = "no model was made private yet" if delta is not None else "delta is not known"
            raise InputError(f"{missing}: call make_private first, and statement(delta=1e-5)")
        assert self._sources is not None
        assert self._booking is not None
        not_covered = []
        if self._facts["ghost"]:
            not_covered.append(
                "that training stopped because a record was not finite, where it did (ghost "
                "clipping)"
            )
        if self._facts["ignores"]:
            not_covered.append(
                "batches with targets that the loss ignores (ignore_index), if any: a mean then "
                "divides by a count that depends on the records"
            )
        if self.resumed:
            not_covered.append(
                "steps that were taken after the checkpoint from which training went on, where "
                "anything of them was seen"
            )
        return statement_of(
            self.ledger,
            self.run,
            delta=delta,
            accountant=self.accountant.mechanism(),
            clip=self._optimizer.max_grad_norm,
            releases=self._optimizer.releases(),
            randomness=self._sources.described(),
            isolation=f"{self._report.summary()}; loss {self._report.loss}",
            sampling=self._booking.sampling(),
            weights_origin=self._facts["weights_origin"],
            statistics_origin=self._facts["statistics_origin"],
            draws=DRAWS if self._facts["draws"] else AUGMENTATION,
            not_covered=not_covered,
        )

    def save_checkpoint(
        self,
        *,
        path: str | Path,
        module: nn.Module,
        optimizer: PrivateOptimizer | None = None,
        noise_scheduler: Any = None,
        grad_clip_scheduler: Any = None,
        checkpoint_dict: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Writes model, optimizer, schedulers and ledger to one file without pickle.

        Args:
            path: of the file (safetensors).
            module: as `make_private` returned it, or the model in it.
            optimizer: as `make_private` returned it.
            noise_scheduler: of Opacus.
            grad_clip_scheduler: of Opacus.
            checkpoint_dict: what else to keep: tensors, numbers, texts, and dicts and lists of
                them.
            options: Opacus's arguments for torch.save, which have no meaning here.

        Raises:
            InputError: nothing was made private yet, or something cannot be kept without pickle.
        """
        require_known(options, ())
        save_training(
            path,
            engine=self,
            module=module,
            optimizer=optimizer,
            noise_scheduler=noise_scheduler,
            grad_clip_scheduler=grad_clip_scheduler,
            extra=checkpoint_dict or {},
        )

    def load_checkpoint(
        self,
        *,
        path: str | Path,
        module: nn.Module,
        optimizer: PrivateOptimizer | None = None,
        noise_scheduler: Any = None,
        grad_clip_scheduler: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Goes on where `save_checkpoint` was called; returns its `checkpoint_dict`.

        Call `make_private` first, with the arguments of the earlier training. Everything is
        compared before anything is changed.

        Raises:
            InputError: the file is no such checkpoint, or one of another model or accountant.
            RefusedError: the noise or the sampling is another one than before.

        What was released after the checkpoint was written is not in its ledger: whoever saw that
        holds more than the statement says. Random numbers go on where they were only if they came
        from a seed; a noise_generator is to be passed in another state, since noise that is used
        twice can be taken away.
        """
        require_known(options, ())
        return load_training(
            path,
            engine=self,
            module=module,
            optimizer=optimizer,
            noise_scheduler=noise_scheduler,
            grad_clip_scheduler=grad_clip_scheduler,
        )

    def trained(self) -> tuple[nn.Module, PrivateOptimizer]:
        """The model that was given to `make_private`, and the optimizer that it returned.

        Raises:
            InputError: nothing was made private yet.
        """
        if self._optimizer is None:
            raise InputError(
                "no model was made private yet: call make_private first, with the arguments of the "
                "training that the checkpoint is of"
            )
        return self._wrapped, self._optimizer

    def generators(self) -> dict[str, torch.Generator]:
        """The generators of noise and sampling that come from a seed; empty without one.

        Raises:
            InputError: several processes draw from them.
        """
        seeded = {} if self._sources is None else self._sources.seeded
        if seeded and self._facts["distributed"]:
            raise InputError(
                "a training of several processes that draws from a seed has no checkpoints, which "
                "would repeat its noise: leave out seed="
            )
        return seeded

    def terms(self) -> dict[str, Any]:
        """Under what a training runs and may not change on the way; empty before `make_private`."""
        return self._terms

    def _require_unused(self) -> None:
        if self._report is not None or len(self.accountant):
            raise InputError(
                "this engine has made a model private already: take a new engine for each "
                "training, so that each statement says what holds for its own (and hand it "
                "ledger=engine.ledger, where the records are the same)"
            )

    def _judged(
        self,
        data_loader: DataLoader,
        sample_inputs: Inputs | None,
        criterion: Criterion | None,
        loss_reduction: Literal["mean", "sum"],
        allow: Allow,
        mode: str,
    ) -> Report:
        """The report of a model that is admitted, and whose records' gradients are right."""
        module = self._wrapped
        batch = self._example = example_batch(data_loader)
        inputs, targets = (
            inputs_and_targets(batch, module) if sample_inputs is None else (sample_inputs, None)
        )
        what = "the first records" if sample_inputs is None else "sample_inputs"
        check_device(module, inputs)  # before their numbers are looked at
        require_finite(what, (inputs, targets))
        report = judged(module, inputs, targets, criterion, loss_reduction, allow)
        self._facts["draws"] = draws_at_random(module, inputs)
        if mode != "ew":
            require_consistent(module, report.rows, inputs, mode=mode)
        else:
            require_expanded_weights(module, report, inputs)
        return report

    def _prepare_criterion(
        self, *, module: Any, optimizer: Any, criterion: Any, loss_reduction: str, **options: Any
    ) -> GhostLoss:
        return GhostLoss(
            criterion, module.clipped_gradients, optimizer.offer_clipped, loss_reduction
        )

    def _prepare_model(self, module: nn.Module, **options: Any) -> Any:
        mode = options.pop("grad_sample_mode", "hooks")
        assert self._report is not None
        if mode != "ghost":
            options.pop("max_grad_norm", None)
        if mode == "ew":
            options.pop("wrap_model", None)
            return GradSampleModuleExpandedWeights(module, **options)
        self._hooks = hooks_for(
            module, self._report.rows, mode=mode, statistics=self._statistics, **options
        )
        return self._hooks

    def _prepare_data_loader(
        self, data_loader: DataLoader, *, poisson_sampling: bool, distributed: bool, **options: Any
    ) -> DataLoader:
        if not poisson_sampling:
            loader, self._sampler = announced_loader(data_loader, self._begin_pass)
            return loader
        rank, world = 0, 1
        if distributed:
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        assert self._sources is not None
        sampler = PoissonSampler(
            len(data_loader.dataset),  # type: ignore[arg-type]
            1 / len(data_loader),
            len(data_loader),
            self._sources.sampling(rank),
            rank=rank,
            world=world,
            on_pass=self._begin_pass,
        )
        self._sampler = sampler
        return poisson_loader(data_loader, sampler, self._example)

    def _begin_pass(self) -> None:
        if self._optimizer is not None:
            self._optimizer.begin_pass()

    def _prepare_optimizer(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        max_grad_norm: Any,
        expected_batch_size: float,
        loss_reduction: str = "mean",
        distributed: bool = False,
        clipping: str = "flat",
        noise_generator: None = None,
        grad_sample_mode: str = "hooks",
        **options: Any,
    ) -> PrivateOptimizer:
        assert self._sources is not None
        assert self._public is not None
        given = (p for group in optimizer.param_groups for p in group["params"])
        trainable = next(p for p in given if p.requires_grad)
        how: FlatClipping = FlatClipping()
        if clipping == "per_layer":
            how = PerLayerClipping(max_grad_norm)
            max_grad_norm = how.total
        elif clipping == "adaptive":
            how = AdaptiveClipping(**options, expected=expected_batch_size)
        self._optimizer = PrivateOptimizer(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction=loss_reduction,
            clipping=how,
            generator=self._sources.noise(trainable.device),
            secure_mode=self.secure_mode,
            statistics=self._statistics,
            statistics_noise_ratio=self._facts["ratio"],
            ghost=self._hooks if grad_sample_mode == "ghost" else None,
            distributed=distributed,
            after_step=self._public.refresh,
        )
        return self._optimizer


def _is_distributed(module: nn.Module) -> bool:
    """Whether other processes hold other records of the batch.

    Raises:
        InputError: torch's own wrapper, which adds up gradients before they are clipped.
    """
    if isinstance(module, nn.parallel.DistributedDataParallel):
        raise InputError(
            "torch's DistributedDataParallel adds up gradients before they are clipped: wrap the "
            "model in opacus.distributed.DifferentiallyPrivateDistributedDataParallel"
        )
    return isinstance(module, DifferentiallyPrivateDistributedDataParallel)


def _for_mode(
    criterion: Criterion | None, mode: str, loss_reduction: Literal["mean", "sum"]
) -> Any:
    if mode != "ghost":
        return criterion or nn.CrossEntropyLoss(reduction=loss_reduction)
    return RecordLoss(criterion or nn.CrossEntropyLoss(reduction=loss_reduction), loss_reduction)
