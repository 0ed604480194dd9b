"""Accounting by privacy loss distributions: the tightest of the accountants, and the slowest."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from opacus.accountants import IAccountant, register_accountant

from dpnorm.privacy.history import History, Run, gaussian_bound, grouped, merged, require_delta

FINEST = 1e-4  # default of dp-accounting for the spacing of privacy losses
SMALLEST_DELTA = 1e-9  # below, rounding in Fourier transforms is as large as delta itself
POINTS = 500_000  # of a discretized distribution, at most about

Step = Callable[[float, float, float], Any]  # noise, rate, spacing -> distribution of one step


def pld_epsilon(history: History, delta: float) -> float:
    """An upper bound on epsilon after the runs of a history, tight but for the discretization.

    Formal guarantee: as that of `epsilon_spent`. The distribution of each step's privacy loss, for
    adding and for removing one record, is discretized to one that dominates it ("connect the dots",
    Doroshenko et al., arXiv 2207.04380) and convolved with the others by dp-accounting.
    """
    return composed_epsilon(history, delta, subsampled_gaussian)


def subsampled_gaussian(noise: float, rate: float, spacing: float) -> Any:
    """The privacy loss of one Gaussian on a Poisson subsample, a record added or removed."""
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=spacing
    )


def composed_epsilon(history: History, delta: float, step: Step, sensitivity: float = 1.0) -> float:
    """An upper bound on epsilon after runs of steps, each with the privacy loss that `step` gives.

    Any spacing of the losses gives an upper bound. It is chosen such that its rounding does not add
    up over the steps, and that no array outgrows memory where epsilon is huge: a coarse first pass
    finds how far losses reach.

    Args:
        history: runs of (noise multiplier, sampling rate, steps).
        delta: the probability with which the guarantee may fail.
        step: (noise multiplier, sampling rate, spacing) -> dp-accounting's distribution.
        sensitivity: the largest distance of two Gaussians that `step` compares.

    Returns:
        Epsilon; infinite where a run has no noise. Never more than `gaussian_bound`, to which it
        falls back where losses are too large for floating point.
    """
    require_delta(delta)
    runs = merged(history)
    if not runs:
        return 0.0
    bound = gaussian_bound(runs, delta, sensitivity)
    if not bound < math.inf:
        return math.inf
    if delta < SMALLEST_DELTA:
        return bound
    runs = grouped(runs)
    distance = sensitivity / min(noise for noise, _, _ in runs)
    largest = distance * (distance / 2 + 10)  # of one step's losses: a Gaussian ends at 10 sigma
    try:
        with np.errstate(over="raise", invalid="raise", divide="ignore", under="ignore"):
            reach = _composed(runs, step, largest / 2000).get_epsilon_for_delta(1e-12)
            reach = max(largest, reach if math.isfinite(reach) else bound)
            spacing = max(_spacing(runs), reach / POINTS)
            epsilon = float(_composed(runs, step, spacing).get_epsilon_for_delta(delta))
    except (ArithmeticError, ValueError, MemoryError):
        return bound
    return min(bound, epsilon)  # of two upper bounds; a NaN is not smaller, and drops out


def _spacing(runs: History) -> float:
    """How far the discrete losses lie apart.

    Rounding adds up to a standard deviation of about spacing / 2 * sqrt(steps): 0.005 at most, or
    three times as much where there are so many different runs that time matters more.
    """
    root = math.sqrt(sum(steps for _, _, steps in runs))
    return min(FINEST, 0.01 / root) if len(runs) <= 10 else min(10 * FINEST, 0.03 / root)


def _composed(runs: list[Run], step: Step, spacing: float) -> Any:
    result: Any = None
    for noise, rate, steps in runs:
        found = step(noise, rate, spacing).self_compose(steps)
        result = found if result is None else result.compose(found)
    return result


class PLDAccountant(IAccountant):
    """Opacus's accountant "pld": an upper bound by dp-accounting's privacy loss distributions.

    Formal guarantee: as that of `epsilon_spent`. Opacus finds it as `create_accountant("pld")`.

    Attributes:
        history: runs of (noise multiplier, sampling rate, steps).
    """

    def __init__(self) -> None:
        self.history: list[Run] = []

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        run = (noise_multiplier, sample_rate)
        if self.history and self.history[-1][:2] == run:
            self.history[-1] = (*run, self.history[-1][2] + 1)
        else:
            self.history.append((*run, 1))

    def get_epsilon(self, delta: float) -> float:
        return pld_epsilon(self.history, delta)

    def __len__(self) -> int:
        return len(self.history)

    @classmethod
    def mechanism(cls) -> str:
        return "pld"


register_accountant("pld", PLDAccountant, force=True)  # importing it twice is no error
