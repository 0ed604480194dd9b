"""Mu from one run, and epsilon under the Gaussian family (arXiv 2410.22235)."""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dpnorm.leakage.audits.gaussian import epsilon_of_mu, require_positive
from dpnorm.leakage.audits.inputs import require_counts, require_level
from dpnorm.leakage.bound import Bound

Floats = NDArray[np.float64]

_LARGEST_MU = 64.0  # no number of canaries that fits a computer rejects it
_POINTS = 33  # how many mu are tried in one pass over the recursion
_PASSES = 6  # 64 / 32^6 = 6e-8 is the width that remains


def one_run_gaussian_epsilon(
    correct: int, guesses: int, canaries: int, *, delta: float, confidence: float = 0.95
) -> Bound:
    """The lower bound on epsilon from one run, if its trade-off curve is a Gaussian one.

    The setting is that of `one_run_epsilon`. The bound is the epsilon at delta of the largest mu
    that is refuted at 1 - confidence (`rejects`). As it uses the whole trade-off curve, it is much
    larger than `one_run_epsilon` wherever that is well above 0.

    **Guarantee.** If the mechanism is mu-Gaussian differentially private for adding or removing
    one canary, the bound exceeds the epsilon of that mu with probability at most 1 - confidence.
    Of a mechanism with another trade-off curve it says that its curve is below the Gaussian one
    somewhere, not that it is at this delta: hence "assumes a trade-off family". It is void where
    `one_run_epsilon` is, and if r was not the same whatever the scores.

    Source: arXiv 2410.22235. The recursion was derived anew (see `rejects`). Verified by tests:
    no exactly known probability of guessing, with independent guesses and with guesses that hang on
    one noisy sum, is rejected; m = 1 gives the exact optimum; a linear program gives the same;
    on null scores and on Gaussian scores of known mu the bound exceeds the truth no more often than
    it may.

    Args:
        correct: v, the guesses that were right.
        guesses: r, between 1 and `canaries`, fixed in advance.
        canaries: m, guessed or not.
        delta: in (0, 1).
        confidence: in (0, 1).

    Raises:
        InputError: as `one_run_epsilon`, or delta = 0, where no Gaussian has a finite epsilon.
    """
    correct, guesses, canaries = require_counts(correct, guesses, canaries)
    delta, confidence = require_level(delta, confidence)
    require_positive(delta)
    epsilon, ceiling = (
        epsilon_of_mu(largest_mu(right, guesses, canaries, 1 - confidence), delta)
        for right in (correct, guesses)
    )
    return Bound(
        value=epsilon,
        low=epsilon,
        high=math.inf,
        confidence=confidence,
        method="one run, Gaussian trade-off (arXiv 2410.22235)",
        canaries=canaries,
        guesses=guesses,
        correct=correct,
        delta=delta,
        ceiling=ceiling,
        fixed="the number of guesses, by the caller's word",
        standing="assumes a trade-off family",
        condition="for Gaussian differential privacy, if members were drawn by fair coins",
    )


@functools.lru_cache(maxsize=4096)
def largest_mu(correct: int, guesses: int, canaries: int, significance: float) -> float:
    """The largest mu that is rejected, to 1e-7 from below; 0 if none is."""

    def rejected(mu: Floats) -> NDArray[np.bool_]:
        return rejects(
            lambda y: ndtr(ndtri(y) - mu), significance, correct, guesses, canaries, mu.shape
        )

    low, high = 0.0, _LARGEST_MU
    for _ in range(_PASSES):
        grid = np.linspace(low, high, _POINTS)
        # the end of the grid was not rejected, or is the largest mu, which never is
        first_kept = int(np.argmin(np.append(rejected(grid[:-1]), False)))
        if first_kept == 0:
            return low
        low, high = float(grid[first_kept - 1]), float(grid[first_kept])
    return low


def rejects(
    inverse: Callable[[Floats], Floats],
    probability: float,
    correct: int,
    guesses: int,
    canaries: int,
    shape: tuple[int, ...] = (),
) -> NDArray[np.bool_]:
    """Whether P[at least v of r guesses are right] < probability, under a trade-off curve.

    Let F(x) = 1 - f(x) be the largest probability under one of two neighbours of an event that has
    probability x under the other; F is concave. Condition on all coins but that of canary i: the
    event "i is guessed right and at least j are right" becomes, with coin i flipped, "i is guessed
    wrong and at least j - 1 are right". So with p_j = P[exactly j right], averaging over i and the
    coins (Jensen), for each j = 1..r:

        R_j <= F(H_{j-1}),   R_j = sum over k >= j of k p_k / m,
                             H_j = sum over k >= j of (r - k) p_k / m.

    Of all p with P[>= v] = probability, the one that needs least mass to satisfy these has its
    tail at v alone, and at each j below only what H_j >= inverse(R_{j+1}) asks for: mass moved
    from j to j - 1 adds to H and takes from R. If even this needs more than 1, no p exists.

    Args:
        inverse: F^-1, convex and increasing on [0, 1], elementwise over arrays of `shape`.
        probability: in (0, 1).
        correct: v.
        guesses: r.
        canaries: m.
        shape: of the curves that are judged at once.
    """
    right = np.full(shape, probability * correct / canaries)
    wrong = np.full(shape, probability * (guesses - correct) / canaries)
    whole = guesses / canaries * (1 + 1e-9)  # rounding must not reject
    for j in range(correct - 1, -1, -1):
        needed = np.maximum(wrong, inverse(right))
        grown = np.minimum(right + j / (guesses - j) * (needed - wrong), 1.0)
        settled = (needed <= wrong) | (grown + needed > whole)
        right, wrong = grown, needed
        if settled.all():
            break  # each curve stands still for good, or needs more than there is
    return right + wrong > whole
