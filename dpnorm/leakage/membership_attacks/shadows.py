"""What the shadow models of each target say about its record: counts, means and scatter.

A target is a pair (model m, record n); its shadows are all the other models. Nothing here that
belongs to a target in model m reads the signals or the memberships of model m, not even up to
rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK = 2**18  # targets worked on at a time: a dozen arrays of 2 MB, near the caches


def blocks(models: int, records: int) -> Iterator[slice]:
    """Slices of records that keep the memory of an attack independent of the pool's size."""
    width = max(1, _BLOCK // models)
    for start in range(0, records, width):
        yield slice(start, start + width)


def sum_of_others(values: Floats) -> Floats:
    """Row m of the result is the sum of all rows but m: float64[M, N].

    Adds what stands before row m to what stands after it. The total minus row m would leave a
    rounding error of the size of row m in a sum that must not know it.
    """
    result = np.zeros_like(values)
    np.cumsum(values[:-1], axis=0, out=result[1:])
    result[:-1] += np.cumsum(values[:0:-1], axis=0)[::-1]
    return result


@dataclass(frozen=True, eq=False)
class Shadows:
    """Per target (m, n): the models other than m on one side of record n; each float64[M, N].

    Attributes:
        count: how many there are.
        mean: their mean signal, 0 where there are none.
        scatter: the sum of squared deviations from that mean.
    """

    count: Floats
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, signal: Floats, side: Bools) -> "Shadows":
        """Summarizes `signal` (float64[M, N]) over the shadows in `side` (bool[M, N])."""
        center = signal.mean(axis=0)  # changes no deviation; keeps the sums of squares exact
        here = (signal - center) * side
        count = sum_of_others(side.astype(np.float64))
        total = sum_of_others(here)
        at_least_one = np.maximum(count, 1.0)
        mean = total / at_least_one
        scatter = np.maximum(sum_of_others(here**2) - total * mean, 0.0)
        scatter[count < 2] = 0.0
        return cls(count, np.where(count > 0, mean + center, 0.0), scatter)

    @property
    def freedom(self) -> Floats:
        """The degrees of freedom of the scatter: count - 1, or 0."""
        return np.maximum(self.count - 1, 0.0)


def mean_of_shadows(values: Floats, side: Bools) -> Floats:
    """The mean over the shadows in `side`: float64[M, N]; positive values give positive means.

    Call `require_shadows` first: without a shadow there is no mean.
    """
    means = np.empty_like(values)
    for block in blocks(*values.shape):
        here = side[:, block].astype(np.float64)
        means[:, block] = sum_of_others(values[:, block] * here) / sum_of_others(here)
    return means


def require_models(models: int, least: int, attack: str) -> None:
    """Refuses a pool with too few models to be targets and shadows of each other."""
    if models < least:
        raise InputError(
            f"{attack} was asked for on a pool of {models} model(s); it needs at least {least}: "
            "each is a target with the others as its shadows. The attack 'loss' needs no shadows"
        )


def require_shadows(side: Bools, name: str, least: int, attack: str) -> None:
    """Refuses a pool in which some target has fewer than `least` shadows on one side.

    Each record needs one model more than that on the side, as the target itself may be one.
    """
    few = int((side.sum(axis=0) <= least).sum())
    if few:
        models, records = side.shape
        raise InputError(
            f"{attack} needs at least {least} shadow(s) that are {name} for each target, so each "
            f"record {name} at least {least + 1} models; {few} of the {records} records of this "
            f"pool of {models} models are {name} fewer: train more models (draw_membership leaves "
            "some such records below about 32), or take the attack 'bavaria', which needs none"
        )
