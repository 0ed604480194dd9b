"""Epsilon from one run: the bound of Steinke, Nasr and Jagielski (arXiv 2305.08846)."""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, expit

from dpnorm.errors import InputError
from dpnorm.leakage.audits.inputs import require_counts, require_level
from dpnorm.leakage.bound import Bound

_TOLERANCE = 1e-9


def one_run_epsilon(
    correct: int, guesses: int, canaries: int, *, delta: float, confidence: float = 0.95
) -> Bound:
    """The lower bound on epsilon from guessing the membership of many canaries of one run.

    Each of m canaries was in or out by a fair coin of its own; the attacker saw what the mechanism
    released, guessed r of them and was right v times. The bound is the largest epsilon whose
    p-value (`one_run_p_value`) is below 1 - confidence.

    **Guarantee.** If the mechanism is (epsilon, delta)-differentially private for adding or
    removing one canary, the bound exceeds that epsilon with probability at most 1 - confidence,
    whatever the mechanism and the attack. What voids it: guesses, or their number r, chosen with
    knowledge of who is a member (also through a threshold that was picked because it did best);
    canaries whose coins are not fair and independent, such as exactly half of them in.

    Source: arXiv 2305.08846, corollary 5.4.

    >>> print(one_run_epsilon(1439, 1510, 100_000, delta=1e-5))
    epsilon >= 2.676 at delta 1e-05, confidence 95%
      standing:  rigorous: for any mechanism, if members were drawn by fair coins
      method:    one run (arXiv 2305.08846)
      evidence:  1439 of 1510 guesses right, 100000 canaries
      ceiling:   3.913, the most that an audit of this size could show
      fixed:     the number of guesses, by the caller's word

    Args:
        correct: v, the guesses that were right.
        guesses: r, between 1 and `canaries`.
        canaries: m, guessed or not.
        delta: in (0, 1), or 0 for pure differential privacy.
        confidence: in (0, 1).

    Raises:
        InputError: correct > guesses > canaries in either place, or a rate out of range.
    """
    correct, guesses, canaries = require_counts(correct, guesses, canaries)
    delta, confidence = require_level(delta, confidence)
    epsilon, ceiling = (
        _largest_epsilon(right, guesses, canaries, delta, 1 - confidence)
        for right in (correct, guesses)
    )
    return Bound(
        value=epsilon,
        low=epsilon,
        high=math.inf,
        confidence=confidence,
        method="one run (arXiv 2305.08846)",
        canaries=canaries,
        guesses=guesses,
        correct=correct,
        delta=delta,
        ceiling=ceiling,
        fixed="the number of guesses, by the caller's word",
        standing="rigorous",
        condition="for any mechanism, if members were drawn by fair coins",
    )


def one_run_p_value(
    correct: int, guesses: int, canaries: int, *, epsilon: float, delta: float
) -> float:
    """How probable so many correct guesses are, at most, under (epsilon, delta).

    With W ~ Binomial(r, q) and q = e^epsilon / (1 + e^epsilon):

        beta  = P[W >= v]
        alpha = max over i = 1..v of P[v - i <= W < v] / i
        p     = min(1, beta + 2 m delta alpha)

    Args:
        correct: v.
        guesses: r.
        canaries: m.
        epsilon: the claim, finite and at least 0.
        delta: of the claim, in [0, 1).

    Raises:
        InputError: as `one_run_epsilon`, or a wrong epsilon.
    """
    correct, guesses, canaries = require_counts(correct, guesses, canaries)
    delta, _ = require_level(delta, 0.5)
    if not 0 <= epsilon < math.inf:
        raise InputError(f"epsilon is {epsilon!r}; it must be finite and at least 0")
    return _p_value(correct, guesses, canaries, float(epsilon), delta)


def _p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    if correct == 0:
        return 1.0
    q = float(expit(epsilon))
    beta = float(_at_least(np.array([correct]), guesses, q)[0])
    if delta == 0 or beta >= 1:
        return beta
    # Only starts of the window near the mean matter, so the cost grows with sqrt(r): above them
    # W has no mass, and below them a window gains length but no mass.
    reach = 40 * math.sqrt(guesses * q * (1 - q)) + 40
    first = max(0, math.floor(guesses * q - reach))
    last = min(correct - 1, math.ceil(guesses * q + reach))
    if last < first:
        return 1.0
    start = np.arange(first, last + 1)
    alpha = float(np.max((_at_least(start, guesses, q) - beta) / (correct - start)))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def _at_least(k: NDArray[np.int_], trials: int, q: float) -> NDArray[np.float64]:
    """P[Binomial(trials, q) >= k] for 0 <= k <= trials."""
    positive = np.maximum(k, 1)
    return np.where(k <= 0, 1.0, betainc(positive, trials - positive + 1, q))


@functools.lru_cache(maxsize=4096)
def _largest_epsilon(
    correct: int, guesses: int, canaries: int, delta: float, significance: float
) -> float:
    def rejected(epsilon: float) -> bool:
        return _p_value(correct, guesses, canaries, epsilon, delta) < significance

    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejected(high):
        low, high = high, 2 * high
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low  # the end that was rejected: rounding never raises the bound
