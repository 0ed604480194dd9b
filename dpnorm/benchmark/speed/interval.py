"""Intervals of ratios and of exponents from timings that were taken in turns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dpnorm.leakage.estimate import Estimate

CONFIDENCE = 0.95
ENOUGH = 6  # samples: with fewer, not even the whole range of them reaches 95%


def median_interval(samples: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """The median, and the interval between two order statistics that inverts the sign test.

    Of n samples the k-th smallest and the k-th largest are taken, with the largest k for which
    `1 - 2 P(Binomial(n, 1/2) < k)` reaches the confidence. It holds for independent samples with
    one median in common; they need no common distribution, no symmetry and no finite variance,
    which is what times on a shared machine have to offer. `confidence` of the result is the one
    that is reached; where n < 6 that is less than 95%, for the whole range of the samples.

    Args:
        samples: at least one number.
        confidence: that is asked for.

    >>> str(median_interval(range(1, 10))), round(median_interval(range(9)).confidence, 4)
    ('5.000 [2.000, 8.000]', 0.9609)
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    count = len(ordered)
    below = stats.binom.cdf(np.arange(count // 2 + 1) - 1, count, 0.5)  # P(Binomial < k), k = 0, 1,
    wide = np.flatnonzero(1 - 2 * below >= confidence)
    k = max(1, int(wide[-1]))
    low, high = float(ordered[k - 1]), float(ordered[count - k])
    reached = 1 - 2 * float(stats.binom.cdf(k - 1, count, 0.5))
    return Estimate(float(np.median(ordered)), low, high, max(0.0, reached))


def ratio_of(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """The median of the ratios of pairs that were measured one after the other.

    What slows a whole pair down is no part of its ratio.
    """
    return median_interval(np.divide(numerator, denominator))


def exponent_of(sizes: Sequence[float], seconds: Sequence[Sequence[float]]) -> Estimate:
    """The exponent a of time ~ size^a: the median over rounds of each round's slope.

    A round measures every size once; its slope is that of the least-squares line through
    (log size, log time). The interval speaks of the noise of the times. That time is a power of the
    size at all it does not say.

    Args:
        sizes: at least two.
        seconds: [size][round].

    >>> round(float(exponent_of([1, 2, 4], [[1.0] * 3, [4.0] * 3, [16.0] * 3])), 6)
    2.0
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))
    x -= x.mean()
    slopes = x @ np.log(np.asarray(seconds, dtype=np.float64)) / (x @ x)
    return median_interval(slopes)
