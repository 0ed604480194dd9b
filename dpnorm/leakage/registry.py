"""Attacks by name: a pool in, scores for every model and record out."""

import inspect
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import unknown_name
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.scores import MembershipScores

Attack = Callable[..., NDArray[np.float64]]
"""(pool, **options) -> float64[M, N], higher for members."""

ATTACKS: dict[str, Attack] = {}


def register(name: str) -> Callable[[Attack], Attack]:
    """Makes an attack known under `name`."""

    def add(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return add


def attacks() -> list[str]:
    """The names that `attack` takes."""
    from dpnorm.leakage import membership_attacks  # noqa: F401  (its files register themselves)

    return sorted(ATTACKS)


def attack(pool: Pool, name: str, **options: object) -> MembershipScores:
    """Scores each record's membership in each model of the pool.

    Every model is a target in its turn; where an attack needs shadow models, they are the others.

    Args:
        pool: the models, seen through their eval-mode logits.
        name: one of `attacks()`: "bavaria", "calibrated", "lira", "loss" or "rmia".
        options: what the attack of that name takes.

    Raises:
        InputError: an unknown attack or option, or a pool that the attack cannot work on.
    """
    known = attacks()
    if name not in known:
        raise unknown_name("attack", name, known)
    allowed = list(inspect.signature(ATTACKS[name]).parameters)[1:]
    for option in options:
        if option not in allowed:
            raise unknown_name(f"option of the attack {name!r}", option, allowed or ["(none)"])
    scores = ATTACKS[name](pool, **options)
    return MembershipScores(attack=name, scores=scores, keep=pool.keep, outlier=pool.outlier)
