"""Epsilon of the Poisson-subsampled Gaussian mechanism, and the noise that reaches an epsilon."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dpnorm.errors import InputError, unknown_name
from dpnorm.privacy.history import (
    MOST_RUNS,
    History,
    Run,
    gaussian_bound,
    grouped,
    merged,
    require_delta,
)
from dpnorm.privacy.pld import SMALLEST_DELTA, pld_epsilon

ACCOUNTANTS = ("prv", "rdp", "pld")
TOLERANCE = 0.01  # how far below the budget a calibrated epsilon may lie


def epsilon_spent(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float, accountant: str
) -> float:
    """An upper bound on epsilon after `steps` steps.

    Formal guarantee: holds for adding or removing one record, when each step's batch is an
    independent Poisson sample at `sampling_rate` and each step releases one Gaussian of
    `noise_multiplier` times the sensitivity. What a step releases besides, from the same batch, is
    to be in `noise_multiplier` (`dpnorm.privacy.joint`), and no step of its own.
    """
    return epsilon_of(
        [(noise_multiplier, sampling_rate, steps)], delta=delta, accountant=accountant
    )


def epsilon_of(history: History, *, delta: float, accountant: str) -> float:
    """An upper bound on epsilon after runs of (noise multiplier, sampling rate, steps).

    No steps at all spend nothing, steps without noise everything (infinity). More than 100
    different runs (by rdp 500) are accounted as fewer that are slightly less noisy. Where the
    losses are too large for the accountant, a looser upper bound is taken: "pld" for "prv", and in
    the end that of the Gaussians without subsampling.

    Args:
        history: runs of (noise multiplier, sampling rate, steps), in any order.
        delta: the probability with which the guarantee may fail.
        accountant: "prv" or "rdp" by Opacus, or "pld" by dp-accounting.

    Raises:
        InputError: an unknown accountant, a delta outside (0, 1), or an impossible run.
    """
    if accountant not in ACCOUNTANTS:
        raise unknown_name("accountant", accountant, ACCOUNTANTS)
    require_delta(delta)
    runs = merged(history)
    return _epsilon_of(tuple(runs), delta, accountant) if runs else 0.0


@functools.lru_cache(
    maxsize=4096
)  # the models of a pool, and the search for their noise, ask alike
def _epsilon_of(runs: tuple[Run, ...], delta: float, accountant: str) -> float:
    """See `epsilon_of`: of merged runs, at least one."""
    bound = gaussian_bound(runs, delta)
    if not bound < math.inf:
        return math.inf
    if delta < SMALLEST_DELTA:
        accountant = "rdp"
    if accountant == "pld":
        return max(0.0, pld_epsilon(runs, delta))
    claimed = _by_opacus(accountant, grouped(runs, _MOST_RUNS[accountant]), delta)
    if claimed is None and accountant == "prv":
        claimed = pld_epsilon(runs, delta)
    return max(0.0, bound if claimed is None else min(bound, claimed))


def _by_opacus(accountant: str, runs: History, delta: float) -> float | None:
    """Epsilon by an accountant of Opacus; None where its numbers overflow, or would take minutes.

    A warning from its numerical integration counts as a failure too: its bound may be wrong then.
    """
    from opacus.accountants import create_accountant

    book: Any = create_accountant(mechanism=accountant)
    book.history = list(runs)
    if accountant == "prv" and _points(runs, delta) > _MOST_POINTS:
        return None
    # without subsampling (q = 1) prv takes log(1 - q), and minus infinity is what it needs
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="ignore"):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", _AT_AN_END, UserWarning)
        try:
            epsilon = float(book.get_epsilon(delta=delta))
        except (ArithmeticError, ValueError, RuntimeError, MemoryError, Warning):
            return None
    return epsilon if math.isfinite(epsilon) else None


def _points(runs: History, delta: float) -> float:
    """About how many points prv's discretized losses have, over all runs."""
    from opacus.accountants import RDPAccountant

    book: Any = RDPAccountant()
    book.history = list(runs)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", _AT_AN_END, UserWarning)
        reach = float(book.get_epsilon(delta=delta / 4000, alphas=[1.5, 2, 4, 8, 16, 32])) + 3
    steps = sum(steps for _, _, steps in runs)
    return len(runs) * 2 * reach / 0.01 * math.sqrt(steps * math.log(12_000 / delta) / 2)


@functools.cache
def noise_for(
    *,
    epsilon: float,
    sampling_rate: float,
    steps: int,
    delta: float,
    accountant: str,
    before: tuple[Run, ...] = (),
) -> float:
    """The smallest noise multiplier, within tolerance, whose epsilon is at most `epsilon`.

    Args:
        epsilon: the budget, of these steps together with those before.
        sampling_rate: probability of a record to be in a batch.
        steps: how many.
        delta: the probability with which the guarantee may fail.
        accountant: "prv", "rdp" or "pld".
        before: what was released of the same records: (noise multiplier, sampling rate, steps).

    Raises:
        InputError: no noise multiplier up to 2000 reaches it; the message says what would.
    """
    if before and (already := epsilon_of(before, delta=delta, accountant=accountant)) >= epsilon:
        raise InputError(
            f"epsilon {epsilon:g} is spent: what was released of these records before has "
            f"{already:.4g} at delta {delta:g}; nothing is left for {steps} steps more"
        )

    def spent(sigma: float) -> float:
        history = [*before, (sigma, sampling_rate, steps)]
        return epsilon_of(history, delta=delta, accountant=accountant)

    if accountant == "pld":  # slow: start from what prv says, whose bound adds 0.01
        near = noise_for(
            epsilon=epsilon + 0.01,
            sampling_rate=sampling_rate,
            steps=steps,
            delta=delta,
            accountant="prv",
            before=before,
        )
        return _noise_near(near, spent, epsilon)
    high = 1.0
    while (at_high := spent(high)) > epsilon:
        high *= 2
        if high > _LARGEST:
            least = math.ceil(1000 * at_high) / 1000
            finer = ", or the accountant 'pld', whose error is smaller" * (accountant == "prv")
            raise InputError(
                f"epsilon {epsilon:g} cannot be reached: {steps} steps at sampling rate "
                f"{sampling_rate:.3g} and delta {delta:g} spend {at_high:.3g} even at noise "
                f"multiplier {high / 2:g}, which drowns everything; take an epsilon of {least:g} "
                f"at least, fewer steps or smaller batches{finer}"
            )
    low = high / 2 if high > 1.0 else _SMALLEST
    if high == 1.0 and spent(low) <= epsilon:
        return low
    while not _is_close(at_high, epsilon) and high - low > 1e-4 * high:
        middle = (low + high) / 2
        at_middle = spent(middle)
        if at_middle <= epsilon:
            high, at_high = middle, at_middle
        else:
            low = middle
    return high


def _noise_near(start: float, spent: Callable[[float], float], epsilon: float) -> float:
    """As `noise_for`, by few evaluations of `spent`, from a noise multiplier near the result."""
    high, at_high = start, spent(start)
    while at_high > epsilon:
        high *= 1.02
        at_high = spent(high)
    low, at_low = high, at_high
    while at_low <= epsilon:
        high, at_high = low, at_low
        if _is_close(at_high, epsilon) or high <= _SMALLEST:
            return high
        low = max(low / 1.05, _SMALLEST)
        at_low = spent(low)
    target = epsilon - TOLERANCE * min(1.0, epsilon) / 2
    while not _is_close(at_high, epsilon) and high - low > 1e-4 * high:
        part = 0.5  # of the way from high to low, where epsilon is a power of the noise
        if math.isfinite(at_low) and at_high > 0:
            part = math.log(target / at_high) / math.log(at_low / at_high)
        middle = high * (low / high) ** min(max(part, 0.1), 0.9)
        at_middle = spent(middle)
        if at_middle <= epsilon:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return high


def _is_close(spent: float, epsilon: float) -> bool:
    return epsilon - spent <= TOLERANCE * min(1.0, epsilon)


_SMALLEST = 0.2  # below this the accountants lose precision, and epsilon is in the hundreds
_LARGEST = 2000.0
_MOST_RUNS = {"prv": MOST_RUNS, "rdp": 5 * MOST_RUNS}  # some five seconds of each
_MOST_POINTS = 2e7  # some ten seconds of prv
_AT_AN_END = "Optimal order is the (largest|smallest)"  # of rdp's orders: a loose bound, but one
