"""What a private training guarantees for other neighbours: groups of records, replaced records.

Each is computed from a pair of distributions that dominates what a step releases: mixtures of
Gaussians of the step's noise, P with and Q without the records in question. Let Phi be the normal
distribution function, q the sampling rate, and distances be in units of the clipping norm.

Why they dominate. Both cases bound sup over S of P(S) - a Q(S) for a >= 1, and thereby the whole
privacy profile (a < 1 is the same with P and Q exchanged). By the Neyman-Pearson lemma a set S with
N_x(S) = s has N_y(S) >= Phi(Phi^-1(s) - |x - y| / sigma), with equality for half-spaces along
x - y. So what lies at distances d_i has the least mass, for all i at once, where it lies on one
line, at the largest distances, and S is a half-line.
- A group of k records, of which Binomial(k, q) are sampled, moves the sum by at most that number
  (Ganesh, arXiv 2401.10294): N_0 against the mixture of N_c, c ~ Binomial(k, q).
- A replaced record moves it by x or by y, |x|, |y| <= 1: P = (1 - q) N_0 + q N_x against
  Q = (1 - q) N_0 + q N_y. P(S) - a Q(S) = q N_x(S) - (a - 1)(1 - q) N_0(S) - a q N_y(S), where N_0
  and N_y do not count in favour and lie at most 1 and 2 from N_x: x = 1 and y = -1.
A dominating pair stays one under adaptive composition (Zhu, Dong and Wang, arXiv 2106.08567).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import log_ndtr, logsumexp

from dpnorm.errors import InputError
from dpnorm.privacy.history import History, merged
from dpnorm.privacy.pld import composed_epsilon

GRID = 4001  # points from which the inversion of losses starts
TAIL = math.exp(-50)  # mass that is accounted as an infinite loss


def group_epsilon(history: History, k: int, delta: float) -> float:
    """An upper bound on epsilon for adding or removing a group of k records; tight.

    Formal guarantee: (epsilon, delta)-differential privacy for neighbouring datasets that differ in
    k records, all added or all removed, under the conditions of `epsilon_spent`. It is far less
    than k times epsilon with delta e^(k epsilon), what any mechanism has. Without subsampling it is
    that of a Gaussian of sensitivity k.

    Args:
        history: runs of (noise multiplier, sampling rate, steps).
        k: number of records.
        delta: the probability with which the guarantee may fail.

    Returns:
        Epsilon; infinite where a run has no noise.

    Raises:
        InputError: k is less than 1, or delta not in (0, 1).
    """
    if k < 1:
        raise InputError(f"a group of {k} records: it should be at least 1")
    return _group_epsilon(tuple(merged(history)), k, delta)


def substitution_epsilon(history: History, delta: float) -> float:
    """An upper bound on epsilon for replacing one record by another; tight.

    Formal guarantee: (epsilon, delta)-differential privacy for neighbouring datasets of equal size
    that differ in one record, under the conditions of `epsilon_spent`. Without subsampling it is
    that of a Gaussian of sensitivity 2.

    Args:
        history: runs of (noise multiplier, sampling rate, steps).
        delta: the probability with which the guarantee may fail.

    Returns:
        Epsilon; infinite where a run has no noise.

    Raises:
        InputError: delta is not in (0, 1).
    """
    return _substitution_epsilon(tuple(merged(history)), delta)


@functools.lru_cache(maxsize=256)
def _group_epsilon(history: tuple, k: int, delta: float) -> float:
    def step(noise: float, rate: float, spacing: float) -> Any:
        moves = np.arange(k + 1) / noise
        weights = stats.binom.pmf(np.arange(k + 1), k, rate)
        nothing = Mixture(np.zeros(1), np.ones(1))
        removed = _losses(_mixture(moves, weights), nothing, spacing)
        return _distribution(removed, _losses(nothing, _mixture(-moves, weights), spacing))

    return composed_epsilon(history, delta, step, sensitivity=k)


@functools.lru_cache(maxsize=256)
def _substitution_epsilon(history: tuple, delta: float) -> float:
    def step(noise: float, rate: float, spacing: float) -> Any:
        moves, weights = np.array([0.0, 1 / noise]), np.array([1 - rate, rate])
        return _distribution(_losses(_mixture(moves, weights), _mixture(-moves, weights), spacing))

    return composed_epsilon(history, delta, step, sensitivity=2)


@dataclass(frozen=True)
class Mixture:
    """A mixture of normal distributions of variance 1.

    Attributes:
        centres: (M,) their means.
        weights: (M,) their probabilities, all positive.
    """

    centres: np.ndarray
    weights: np.ndarray

    def log_density(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of x (N,), up to that of the standard normal: the logarithm, and its derivative."""
        terms = np.outer(x, self.centres) + (np.log(self.weights) - self.centres**2 / 2)
        total = logsumexp(terms, axis=1)
        return total, np.exp(terms - total[:, None]) @ self.centres

    def log_above(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of the mass above x (N,)."""
        terms = log_ndtr(np.subtract.outer(-x, -self.centres)) + np.log(self.weights)
        return logsumexp(terms, axis=1)

    def span(self) -> tuple[float, float]:
        """Between which values all mass lies, but TAIL at each end."""
        reach = float(stats.norm.isf(TAIL))
        x = np.linspace(self.centres.min() - reach, self.centres.max() + reach, GRID)
        mirrored = Mixture(-self.centres, self.weights)
        inside = (self.log_above(x) > -50) & (mirrored.log_above(-x) > -50)
        return float(x[inside][0]), float(x[inside][-1])


def _mixture(centres: np.ndarray, weights: np.ndarray) -> Mixture:
    return Mixture(centres[weights > 0], weights[weights > 0])


def _losses(upper: Mixture, lower: Mixture, spacing: float) -> Any:
    """The discretized distribution of ln(upper / lower) under `upper`, which dominates it.

    The loss rises with x, since no centre of `upper` lies below one of `lower`: the set where it
    exceeds e is a half-line (x, infinity), and delta(e) = upper(x, infinity) - exp(e) lower(x,
    infinity) is the privacy profile on which connect the dots rests.
    """
    from dp_accounting.pld import pld_pmf

    x = np.linspace(*upper.span(), GRID)
    rough = _loss(upper, lower, x)[0]
    first, last = math.floor(rough[0] / spacing), math.ceil(rough[-1] / spacing)
    levels = np.arange(first, last + 1) * spacing
    place = np.clip(np.searchsorted(rough, levels) - 1, 0, len(x) - 2)
    left, right = x[place], x[place + 1]
    found = np.interp(levels, rough, x)
    for _ in range(2):  # Newton, from a guess that is off by the square of the grid's spacing
        value, slope = _loss(upper, lower, found)
        found = np.clip(found - (value - levels) / np.maximum(slope, 1e-300), left, right)
    deltas = np.exp(upper.log_above(found)) - np.exp(levels + lower.log_above(found))
    deltas = np.clip(np.maximum(deltas, -np.expm1(np.minimum(levels, 0))), 0, 1)
    falling = np.maximum(np.maximum.accumulate(deltas[::-1])[::-1], TAIL)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(spacing, first, last, falling)


def _loss(upper: Mixture, lower: Mixture, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss at x, its derivative)."""
    above, above_slope = upper.log_density(x)
    below, below_slope = lower.log_density(x)
    return above - below, above_slope - below_slope


def _distribution(*pmfs: Any) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.PrivacyLossDistribution(*pmfs)
