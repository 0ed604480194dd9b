"""White-box canaries: gradients of few coordinates, among those of the records."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.gradients.factors import dense, joined

if TYPE_CHECKING:
    from dpnorm.privacy.optimizer import PrivateOptimizer

_ABOVE_CLIP = 100.0  # clipping brings a canary to the clipping norm; without it, it stands out


class GradientCanaries:
    """m canaries in the gradients of a private training, and what its releases say of them.

    A canary is a record whose gradient is known: 100 times the clipping norm in one coordinate of
    the trainable parameters, a coordinate of its own, and which says nothing of private statistics.
    Each is in the training by a fair coin; one that is in takes part in each step by a coin of the
    sampling rate, as a record does, and is clipped, added up and hidden by noise with the records,
    by the code that does it with them.

    A canary's score is the sum of its coordinate over all releases, less what the records of the
    batches add to that coordinate. The auditor knows the records and the weights, only the coins
    are hidden; that part is computed from the records' gradients alone, clipped by a formula of its
    own, so that it tells nothing of the coins. What is left is, for a right training at rate 1 and
    T steps, N(T clip, T (sigma clip)^2) for a canary that is in and N(0, T (sigma clip)^2) for one
    that is out: sqrt(T) / sigma standard deviations apart.

    A step holds the gradients of the canaries that take part in it in memory: about m q / 2 times
    the number of trainable parameters, and twice that for a moment.

    They are the gradient-space Dirac canaries of Steinke, Nasr and Jagielski (arXiv 2305.08846)
    and of Nasr et al. (arXiv 2302.07956): no data need exist that has such a gradient, since the
    guarantee holds for every gradient.

    Args:
        count: m, at least 2 and at most the number of trainable parameters; with a larger
            `spread`, at most the size of the smallest parameter tensor that is used.
        rate: at which records are sampled.
        seed: of the coins, of the coordinates and of the canaries' sampling.
        spread: how many coordinates a canary has, in equal parts, one in each of the `spread`
            largest parameter tensors. One coordinate cannot see a clipping that bounds each tensor
            alone while the whole is accounted; two or more can.
    """

    def __init__(self, count: int, rate: float, *, seed: int, spread: int = 1) -> None:
        if count < 2:
            raise InputError(f"{count} canaries were asked for: at least 2 are needed")
        if spread < 1:
            raise InputError(f"spread is {spread}: a canary has at least 1 coordinate")
        coins, places, sampling = np.random.SeedSequence(seed).spawn(3)
        self.count, self.spread, self._rate = count, spread, rate
        self._inside = np.random.default_rng(coins).random(count) < 0.5
        self._places_seed = places
        self._sampling = np.random.default_rng(sampling)
        # (m, spread): positions in the flattened parameters, one after the other
        self._places: NDArray[np.int64] | None = None
        self._total = np.zeros(count)
        self._injected = False

    def before_clipping(self, optimizer: "PrivateOptimizer") -> None:
        """Adds the gradients of the canaries that take part in this step, once a step.

        Raises:
            InputError: the gradients of records are not there (ghost clipping), there are more
                canaries than parameters, or several processes train together.
        """
        if optimizer.world_size > 1:
            raise InputError("canaries take one process: each of several would add them once more")
        parameters = optimizer.params
        sizes = [p.numel() for p in parameters]
        if self._places is None:
            self._places = self._drawn_places(sizes)
        self._total -= self._of_records(optimizer, self._places)
        if self._injected:
            return  # a further part of the same logical batch
        self._injected = True
        drawn = np.flatnonzero(self._inside & (self._sampling.random(self.count) < self._rate))
        rows = parameters[0].new_zeros((len(drawn), sum(sizes)))
        size = _ABOVE_CLIP * optimizer.max_grad_norm / math.sqrt(self.spread)
        rows.scatter_(1, torch.from_numpy(self._places[drawn]).to(rows.device), size)
        for p, added in zip(parameters, rows.split(sizes, dim=1), strict=True):
            _append(p, added.reshape(len(drawn), *p.shape))
        statistics = optimizer.statistics
        if statistics is not None:
            width = statistics.waiting().shape[1]
            statistics.offer(statistics.waiting().new_zeros((len(drawn), width)), beside=True)

    def after_noise(self, optimizer: "PrivateOptimizer") -> None:
        """Reads the canaries' coordinates off the noisy sum."""
        self._injected = False
        assert self._places is not None
        noisy = torch.cat([p.grad.flatten().double().cpu() for p in optimizer.params]).numpy()
        share = optimizer.divisor / math.sqrt(self.spread)
        self._total += noisy[self._places].sum(1) * share

    def scores(self) -> NDArray[np.float64]:
        """float64[m]: over all releases, less what the records add; higher for members."""
        return self._total.copy()

    def members(self) -> NDArray[np.bool_]:
        """bool[m]: which were in. For after the guesses."""
        return self._inside.copy()

    def _of_records(
        self, optimizer: "PrivateOptimizer", places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """float64[m]: what the records whose gradients wait add to the scores, without noise."""
        samples = [_samples(p) for p in optimizer.params]
        squares = torch.stack([g.float().square().sum(1).double() for g in samples]).sum(0)
        finite = squares.isfinite()  # others are dropped
        norms = squares.sqrt().clamp(min=1e-12)
        factors = (optimizer.max_grad_norm / norms).clamp(max=1.0).masked_fill(~finite, 0.0)
        owned, found, end = np.zeros(places.shape), places, 0
        for g in samples:
            begin, end = end, end + g.shape[1]
            here = (found >= begin) & (found < end)
            columns = g[:, torch.from_numpy(found[here] - begin).to(g.device)].double()
            columns = columns.masked_fill(~finite[:, None], 0.0)
            owned[here] = (factors @ columns).cpu().numpy()
        summed: NDArray[np.float64] = owned.sum(1) / math.sqrt(self.spread)
        return summed

    def _drawn_places(self, sizes: list[int]) -> NDArray[np.int64]:
        generator = np.random.default_rng(self._places_seed)
        starts = np.cumsum([0, *sizes])
        if self.spread == 1:
            self._require_room(int(starts[-1]), "the model has {} trainable parameters")
            return generator.permutation(int(starts[-1]))[: self.count, None]
        if self.spread > len(sizes):
            raise InputError(
                f"spread is {self.spread}, but the model has {len(sizes)} trainable parameter "
                "tensors, and each coordinate of a canary is in another one: take a smaller spread"
            )
        largest = sorted(range(len(sizes)), key=lambda p: -sizes[p])[: self.spread]
        self._require_room(
            sizes[largest[-1]],
            f"the smallest of the {self.spread} parameter tensors that they take has {{}} "
            "coordinates",
        )
        return np.stack(
            [starts[p] + generator.permutation(sizes[p])[: self.count] for p in largest], axis=1
        )

    def _require_room(self, room: int, what: str) -> None:
        if self.count > room:
            raise InputError(
                f"{self.count} canaries were asked for, but {what.format(room)}, and each canary "
                "needs one of its own: take fewer"
            )


def _samples(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The gradients of records that wait, flat: (records, numbers).

    Raises:
        InputError: there are none.
    """
    found = getattr(parameter, "grad_sample", None)
    if found is None:
        raise InputError(
            "there are no gradients of single records for canaries to stand among: take "
            "grad_sample_mode='hooks', 'lean' or 'functorch'"
        )
    whole = dense(joined(found if isinstance(found, list) else [found]))
    return whole.detach().reshape(len(whole), parameter.numel())


def _append(parameter: torch.nn.Parameter, rows: torch.Tensor) -> None:
    """Puts the gradients of more records beside those of a parameter's last backward pass."""
    found = parameter.grad_sample  # type: ignore[attr-defined]
    before = dense(found[-1] if isinstance(found, list) else found)
    both = torch.cat([before, rows.to(before)])
    if isinstance(found, list):
        found[-1] = both
    else:
        parameter.grad_sample = both  # type: ignore[attr-defined]
