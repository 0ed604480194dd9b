"""Histories of noisy releases, and how they are made shorter without claiming too little.

A history is a sequence of runs (noise multiplier, sampling rate, steps): the arguments of the
Poisson-subsampled Gaussian mechanism, and how often it was used with them.
"""

import math
from collections.abc import Sequence

from dpnorm.errors import InputError

Run = tuple[float, float, int]
History = Sequence[Run]
MOST_RUNS = 100  # the time of prv and pld grows with the number of different runs


def merged(history: History) -> list[Run]:
    """The same releases in as few runs as are equal to them.

    Equal runs are added up. Those without subsampling become one Gaussian with the noise
    multiplier (sum of steps / noise^2)^(-1/2), which has their privacy exactly. Runs that release
    nothing (no steps, rate 0, infinite noise) are left out. The order does not matter to any
    accountant.

    Raises:
        InputError: a noise multiplier, a rate or a number of steps that no release can have.
    """
    steps_of: dict[tuple[float, float], int] = {}
    for noise, rate, steps in history:
        if not (noise >= 0 and 0 <= rate <= 1 and steps >= 0):
            raise InputError(
                f"a history has the run (noise multiplier {noise:g}, sampling rate {rate:g}, "
                f"{steps} steps): the noise and the steps should be at least 0, the rate in [0, 1]"
            )
        if steps and rate and noise < math.inf:
            key = (float(noise), float(rate))
            steps_of[key] = steps_of.get(key, 0) + int(steps)
    runs = [(noise, rate, steps) for (noise, rate), steps in steps_of.items() if rate < 1]
    whole = sum(
        steps / noise / noise if noise else math.inf
        for (noise, rate), steps in steps_of.items()
        if rate == 1
    )
    return [*runs, (whole**-0.5, 1.0, 1)] if whole else runs


def grouped(runs: History, most: int = MOST_RUNS) -> list[Run]:
    """At most about `most` runs that are no more private than these.

    Runs whose noise multipliers, and whose rates, differ by less than a factor are replaced by one
    with the smallest noise and the largest rate of them; the factor starts at 1.005 and grows until
    that is enough. Epsilon falls with the noise and rises with the rate, so that what is computed
    for the result is an upper bound for the runs.
    """
    result, width = list(runs), math.log(1.005)
    while len(result) > most:
        bins: dict[tuple[int, int], Run] = {}
        for noise, rate, steps in runs:
            key = (math.floor(math.log(noise) / width), math.floor(math.log(rate) / width))
            least, largest, count = bins.get(key, (noise, rate, 0))
            bins[key] = (min(least, noise), max(largest, rate), count + steps)
        result, width = list(bins.values()), 1.25 * width
    return result


def gaussian_bound(history: History, delta: float, sensitivity: float = 1.0) -> float:
    """An upper bound on epsilon that can always be computed, and ignores the sampling.

    Gaussian releases are rho-zCDP with rho = sum of steps * sensitivity^2 / (2 noise^2), and hence
    (rho + 2 sqrt(rho ln(1 / delta)), delta)-differentially private (Bun and Steinke, arXiv
    1605.02635, propositions 1.3 and 1.6). Infinite where there is no noise.
    """
    rho = sum(
        steps * (sensitivity / noise) / noise * sensitivity / 2 if noise else math.inf
        for noise, _, steps in history
    )
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def require_delta(delta: float) -> None:
    """Raises InputError unless delta is a probability for which an epsilon can be asked."""
    if not isinstance(delta, (int, float)) or not 0 < delta < 1:
        raise InputError(f"delta is {delta!r}: it should be greater than 0 and less than 1")
