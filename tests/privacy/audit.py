"""A white-box audit of steps: does what they release keep the claim that is made for it?

Where the claim is right, what an attacker sees (`tests.privacy.observed`) is a standard normal
vector around a mixture of known points, one for each way to draw the canary, and the likelihood
ratio has a closed form. The events are fixed by it, before any trial is run.

A claim (epsilon, delta) says P(S | one) <= e^epsilon P(S | other) + delta for each event S, in both
directions. Clopper-Pearson intervals that hold for all events together with probability
1 - ERROR decide whether it is violated.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from dpnorm.privacy.accounting import epsilon_of
from tests.privacy.observed import (
    CANARY,
    EXPECTED,
    PARTS,
    RATE,
    Setting,
    Trials,
    clipped_by_hand,
    stated_noise,
)

ERROR = 0.001  # the probability that one audit of a correct implementation finds a violation
DELTAS = (0.3, 0.2, 0.15, 0.1, 0.05, 0.02)
BELOW = (-0.2, -0.4, -0.6)  # log-likelihood ratios; a step's is above log(1 - RATE) = -0.69


def ratios(trials: Trials, setting: Setting) -> dict[str, np.ndarray]:
    """Log-likelihood ratios, with the canary over without: (trials,) each.

    The first takes the points that the code itself releases without noise; the others take those
    of a correct implementation, of all that is released or of a part.
    """
    count, ways, steps, _ = trials.moves.shape
    drawn = np.array(list(itertools.product((0, 1), repeat=steps))).sum(1)
    weights = drawn * math.log(RATE) + (steps - drawn) * math.log1p(-RATE)
    flat = trials.moves.reshape(count, ways, -1)
    along = np.einsum("nwd,nd->nw", flat, trials.left.reshape(count, -1))
    found = {
        "the code": special.logsumexp(weights + along - (flat**2).sum(2) / 2, axis=1),
    }
    canary = clipped_by_hand(CANARY) / stated_noise(setting.noise, setting.ratio)
    for name, part in PARTS.items():
        u = canary[part]
        along = trials.left[..., part] @ u - u @ u / 2
        found[name] = np.logaddexp(math.log1p(-RATE), math.log(RATE) + along).sum(1)
    return found


def events(trials: Trials, setting: Setting, levels: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Which trials lie in which event: (trials,) each. Nothing here depends on other trials."""
    found = {
        f"likelihood ratio of {name} above e^{level:.2f}": ratio > level
        for name, ratio in ratios(trials, setting).items()
        for level in levels
    }
    squares = (trials.left**2).sum(2)
    size = trials.left[0].size
    found["far from where it should be"] = squares.sum(1) > stats.chi2.isf(1e-3, size)
    # a mean over those that were drawn shows how many they were by its noise
    near = np.minimum(squares[:, 0], ((trials.left - trials.moves[:, -1]) ** 2).sum(2)[:, 0])
    between = (trials.others[:, 0] + 0.5) / EXPECTED
    quieter = near * between**2 < trials.left.shape[2]
    found["noise as if one more was averaged"] = quieter & (trials.others[:, 0] > 0)
    return found


@dataclass(frozen=True)
class Violation:
    """P(event | more) > e^epsilon P(event | less) + delta, by at least `excess`."""

    event: str
    more: str
    epsilon: float
    delta: float
    excess: float


@dataclass(frozen=True)
class Audit:
    """What the trials say of a claim; all of it holds together with probability 1 - ERROR.

    Attributes:
        violations: of the claim, the worst first.
        epsilon: by delta, a lower bound on epsilon.
    """

    violations: tuple[Violation, ...]
    epsilon: dict[float, float]


@functools.cache
def claimed(history: tuple[tuple[float, float, int], ...]) -> tuple[tuple[float, float], ...]:
    """(epsilon, delta) of a history, by privacy loss distributions."""
    return tuple((epsilon_of(history, delta=d, accountant="pld"), d) for d in DELTAS)


def audit(without: Trials, with_canary: Trials, setting: Setting, history=None) -> Audit:
    """Tests a claim, in both directions.

    Args:
        without: trials on the data set without the canary.
        with_canary: on the one with it.
        setting: that both ran under.
        history: (noise multiplier, rate, steps) that are claimed; default those of a joint release.
    """
    joint = ((setting.noise, RATE, setting.steps),)
    claims = claimed(joint if history is None else history)
    levels = (*sorted({epsilon for epsilon, _ in (*claims, *claimed(joint))}), *BELOW)
    without_it, with_it = (events(t, setting, levels) for t in (without, with_canary))
    confidence = 1 - ERROR / (2 * len(with_it))
    violations, bounds = [], dict.fromkeys(DELTAS, 0.0)
    for event in with_it:
        p, q = (_interval(e[event], confidence) for e in (without_it, with_it))
        for name, more, less in (
            ("with", q, p),
            ("without", p, q),
            ("with, complement", _complement(q), _complement(p)),
            ("without, complement", _complement(p), _complement(q)),
        ):
            for epsilon, delta in claims:
                excess = more[0] - math.exp(epsilon) * less[1] - delta
                if excess > 0:
                    violations.append(Violation(event, name, epsilon, delta, excess))
                if more[0] > delta:
                    bounds[delta] = max(bounds[delta], math.log((more[0] - delta) / less[1]))
    return Audit(tuple(sorted(violations, key=lambda v: -v.excess)), bounds)


def _interval(inside: np.ndarray, confidence: float) -> tuple[float, float]:
    interval = stats.binomtest(int(inside.sum()), len(inside)).proportion_ci(confidence, "exact")
    return float(interval.low), float(interval.high)


def _complement(interval: tuple[float, float]) -> tuple[float, float]:
    return 1 - interval[1], 1 - interval[0]


def noise_ratio(without: Trials, part: str) -> tuple[float, float]:
    """The variance of a part of the release over the stated one, and whether that may be chance.

    Returns:
        (measured variance / stated variance, two-sided p-value of the chi-square test).
    """
    left = without.left[..., PARTS[part]]
    total = float((left**2).sum())
    below = stats.chi2.cdf(total, left.size)
    return total / left.size, 2 * min(below, stats.chi2.sf(total, left.size))
