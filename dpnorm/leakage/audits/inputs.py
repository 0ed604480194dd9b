"""What every audit refuses: counts, rates, scores and memberships that cannot be right."""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from dpnorm.errors import InputError

UNFAIR = 1e-6
"""A number of members this improbable under fair coins is taken for a mistake."""


def require_count(name: str, value: Any, least: int = 0) -> int:
    """The value as an int of at least `least`, or InputError."""
    try:
        count = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; a whole number is needed") from None
    if isinstance(value, (bool, np.bool_)) or count < least:
        raise InputError(f"{name} is {value!r}; a whole number of at least {least} is needed")
    return count


def require_counts(correct: Any, guesses: Any, canaries: Any) -> tuple[int, int, int]:
    """The three as ints with correct <= guesses <= canaries and a guess at least."""
    correct = require_count("correct", correct)
    guesses = require_count("guesses", guesses, 1)
    canaries = require_count("canaries", canaries, 1)
    if correct > guesses:
        raise InputError(
            f"{correct} correct guesses of {guesses}: there cannot be more correct guesses than "
            "guesses (the order of the arguments is correct, guesses, canaries)"
        )
    if guesses > canaries:
        raise InputError(
            f"{guesses} guesses for {canaries} canaries: each canary is guessed at most once (the "
            "order of the arguments is correct, guesses, canaries)"
        )
    return correct, guesses, canaries


def require_level(delta: float, confidence: float) -> tuple[float, float]:
    """The two as floats, with delta in [0, 1) and confidence in (0, 1)."""
    if not isinstance(delta, (int, float, np.floating)) or not 0 <= delta < 1:
        raise InputError(
            f"delta is {delta!r}; it must be above 0 and below 1, or 0 for pure differential "
            "privacy"
        )
    if not isinstance(confidence, (int, float, np.floating)) or not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence!r}; it must be above 0 and below 1")
    return float(delta), float(confidence)


def require_scores(scores: Any) -> NDArray[np.float64]:
    """The scores as float64[m], finite, of at least two canaries."""
    array = np.asarray(scores)
    if array.ndim != 1 or array.size < 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f"scores are {array.dtype}{list(array.shape)}; numbers [m] are needed, one score a "
            "canary and at least two canaries"
        )
    array = array.astype(np.float64)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        raise InputError(f"{wrong} of {array.size} scores are NaN or infinite")
    return array


def require_members(members: Any, canaries: int) -> NDArray[np.bool_]:
    """The membership as bool[canaries], as fair coins may have drawn it."""
    array = np.asarray(members)
    if array.dtype != np.bool_ or array.shape != (canaries,):
        raise InputError(
            f"members are {array.dtype}{list(array.shape)}; bool[{canaries}] is needed, one entry "
            "a score: True where the canary was in"
        )
    inside = int(array.sum())
    if inside in (0, canaries):
        raise InputError(
            f"{inside} of {canaries} canaries are members; an audit needs canaries of both kinds, "
            "each in or out by a fair coin of its own"
        )
    extreme = max(inside, canaries - inside)
    # P[Bin(m, 1/2) >= extreme], both tails
    if 2 * betainc(extreme, canaries - extreme + 1, 0.5) < UNFAIR:
        raise InputError(
            f"{inside} of {canaries} canaries are members, which fair coins give less than once "
            f"in {1 / UNFAIR:,.0f} draws; the bound needs each canary in with probability 1/2"
        )
    return array
