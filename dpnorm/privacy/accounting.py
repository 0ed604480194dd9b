"""Epsilon of the Poisson-subsampled Gaussian mechanism, and the noise that reaches an epsilon."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpnorm.errors import InputError

ACCOUNTANTS = ("prv", "rdp")
TOLERANCE = 0.01  # how far below the budget a calibrated epsilon may lie


def epsilon_spent(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float, accountant: str
) -> float:
    """An upper bound on epsilon after `steps` steps, by Opacus's accountant.

    Formal guarantee: holds for adding or removing one record, when each step's batch is an
    independent Poisson sample at `sampling_rate` and each step releases one Gaussian of
    `noise_multiplier` times the sensitivity.
    """
    return epsilon_of(
        [(noise_multiplier, sampling_rate, steps)], delta=delta, accountant=accountant
    )


def epsilon_of(
    history: Sequence[tuple[float, float, int]], *, delta: float, accountant: str
) -> float:
    """An upper bound on epsilon after runs of (noise multiplier, sampling rate, steps).

    No steps at all spend nothing.
    """
    from opacus.accountants import create_accountant

    if not history:
        return 0.0
    book: Any = create_accountant(mechanism=accountant)
    book.history = list(history)
    # without subsampling (q = 1) prv takes log(1 - q), and minus infinity is what it needs
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", "Optimal order is the (largest|smallest)", UserWarning)
        return float(book.get_epsilon(delta=delta))


@functools.cache
def noise_for(
    *, epsilon: float, sampling_rate: float, steps: int, delta: float, accountant: str
) -> float:
    """The smallest noise multiplier, within tolerance, whose epsilon is at most `epsilon`.

    Raises:
        InputError: no noise multiplier up to 2000 reaches it; the message says what would.
    """

    def spent(sigma: float) -> float:
        return epsilon_spent(
            noise_multiplier=sigma,
            sampling_rate=sampling_rate,
            steps=steps,
            delta=delta,
            accountant=accountant,
        )

    high = 1.0
    while (at_high := spent(high)) > epsilon:
        high *= 2
        if high > _LARGEST:
            raise InputError(
                f"epsilon {epsilon:g} cannot be reached: {steps} steps at sampling rate "
                f"{sampling_rate:.3g} and delta {delta:g} spend {at_high:.3g} even at noise "
                f"multiplier {high / 2:g}; take fewer steps, smaller batches or a larger epsilon"
            )
    low = high / 2 if high > 1.0 else _SMALLEST
    if high == 1.0 and spent(low) <= epsilon:
        return low
    while epsilon - at_high > TOLERANCE * min(1.0, epsilon) and high - low > 1e-4 * high:
        middle = (low + high) / 2
        at_middle = spent(middle)
        if at_middle <= epsilon:
            high, at_high = middle, at_middle
        else:
            low = middle
    return high


_SMALLEST = 0.2  # below this the accountants lose precision, and epsilon is in the hundreds
_LARGEST = 2000.0
