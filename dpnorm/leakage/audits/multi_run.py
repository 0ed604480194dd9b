"""Epsilon from many trials: Clopper-Pearson intervals of the two error rates."""

import math
from typing import Any

from scipy.special import betaincinv, ndtri

from dpnorm.errors import InputError
from dpnorm.leakage.audits.gaussian import epsilon_of_mu, require_positive
from dpnorm.leakage.audits.inputs import require_count, require_level
from dpnorm.leakage.bound import Bound, Standing


def multi_run_epsilon(
    *,
    true_positives: int,
    members: int,
    false_positives: int,
    nonmembers: int,
    delta: float,
    independent: bool,
    confidence: float = 0.95,
) -> Bound:
    """The lower bound on epsilon from trials that each guess one canary of one run.

    The bound is the larger of two sides,

        ln((TPR_low - delta) / FPR_high)   and   ln((TNR_low - delta) / FNR_high),

    with TNR_low = 1 - FPR_high, FNR_high = 1 - TPR_low and TPR_low, FPR_high one-sided
    Clopper-Pearson limits, each at half of the significance. Both sides follow from the same two
    limits, so that nothing more is to be split.

    **Guarantee.** If the mechanism is (epsilon, delta)-differentially private and the trials are
    independent, the bound exceeds epsilon with probability at most 1 - confidence. The rule that
    guesses must have been fixed before these trials. Canaries that share a run are not independent
    trials: then the result is marked heuristic.

    Source: Jagielski, Ullman and Oprea, arXiv 2006.07709.

    Args:
        true_positives: members that were guessed "in".
        members: trials whose canary was in, at least 1.
        false_positives: non-members that were guessed "in".
        nonmembers: trials whose canary was out, at least 1.
        delta: in (0, 1), or 0 for pure differential privacy.
        independent: whether each trial is a run of its own.
        confidence: in (0, 1).

    Raises:
        InputError: more positives than trials, no trial of a kind, or a rate out of range.
    """
    counts = _require_trials(true_positives, members, false_positives, nonmembers)
    delta, confidence = require_level(delta, confidence)

    def epsilon(true_positives: int, false_positives: int) -> float:
        tpr, fpr = _limits(true_positives, members, false_positives, nonmembers, confidence)
        sides = ((tpr - delta, fpr), (1 - fpr - delta, 1 - tpr))
        return max(0.0, *(math.log(more / less) for more, less in sides if more > 0))

    value, ceiling = epsilon(counts[0], counts[2]), epsilon(counts[1], 0)
    standing: Standing = "rigorous" if independent else "heuristic"
    condition = "for any mechanism, if the trials are independent" if independent else _ONE_RUN
    return _bound(
        value, ceiling, counts, delta, confidence, "Clopper-Pearson trials", standing, condition
    )


def multi_run_gaussian_epsilon(
    *,
    true_positives: int,
    members: int,
    false_positives: int,
    nonmembers: int,
    delta: float,
    independent: bool,
    confidence: float = 0.95,
) -> Bound:
    """As `multi_run_epsilon`, for a mechanism with a Gaussian trade-off curve.

    The same two Clopper-Pearson limits give mu = Phi^-1(TPR_low) - Phi^-1(FPR_high), and the bound
    is the epsilon of that mu at delta.

    **Guarantee.** If the mechanism is mu-Gaussian differentially private and the trials are
    independent, the bound exceeds the epsilon of that mu with probability at most 1 - confidence.
    It assumes that family, and is heuristic where the trials share a run.

    Source: Nasr et al., arXiv 2302.07956.

    Raises:
        InputError: as `multi_run_epsilon`, or delta = 0.
    """
    counts = _require_trials(true_positives, members, false_positives, nonmembers)
    delta, confidence = require_level(delta, confidence)
    require_positive(delta)

    def epsilon(true_positives: int, false_positives: int) -> float:
        tpr, fpr = _limits(true_positives, members, false_positives, nonmembers, confidence)
        if tpr <= fpr:  # Phi^-1 of 0 and 1 is infinite
            return 0.0
        return epsilon_of_mu(float(ndtri(tpr) - ndtri(fpr)), delta)

    value, ceiling = epsilon(counts[0], counts[2]), epsilon(counts[1], 0)
    standing: Standing = "assumes a trade-off family" if independent else "heuristic"
    condition = (
        "for Gaussian differential privacy, if the trials are independent"
        if independent
        else _ONE_RUN
    )
    return _bound(
        value,
        ceiling,
        counts,
        delta,
        confidence,
        "Clopper-Pearson trials, Gaussian trade-off",
        standing,
        condition,
    )


_ONE_RUN = "the trials come from one run and are not independent"


def _require_trials(
    true_positives: Any, members: Any, false_positives: Any, nonmembers: Any
) -> tuple[int, int, int, int]:
    counts = []
    for positive, trials, kinds in (
        (true_positives, members, ("true_positives", "members")),
        (false_positives, nonmembers, ("false_positives", "nonmembers")),
    ):
        trials = require_count(kinds[1], trials, 1)
        positive = require_count(kinds[0], positive)
        if positive > trials:
            raise InputError(f"{kinds[0]} is {positive}, {kinds[1]} {trials}: at most all of them")
        counts += [positive, trials]
    return counts[0], counts[1], counts[2], counts[3]


def _limits(
    true_positives: int, members: int, false_positives: int, nonmembers: int, confidence: float
) -> tuple[float, float]:
    """TPR_low and FPR_high, which hold together at the given confidence."""
    half = (1 - confidence) / 2
    tpr, fpr = 0.0, 1.0
    if true_positives > 0:
        tpr = float(betaincinv(true_positives, members - true_positives + 1, half))
    if false_positives < nonmembers:
        fpr = float(betaincinv(false_positives + 1, nonmembers - false_positives, 1 - half))
    return tpr, fpr


def _bound(
    value: float,
    ceiling: float,
    counts: tuple[int, int, int, int],
    delta: float,
    confidence: float,
    method: str,
    standing: Standing,
    condition: str,
) -> Bound:
    true_positives, members, false_positives, nonmembers = counts
    return Bound(
        value=value,
        low=value,
        high=math.inf,
        confidence=confidence,
        method=method,
        canaries=members + nonmembers,
        guesses=members + nonmembers,
        correct=true_positives + nonmembers - false_positives,
        delta=delta,
        ceiling=ceiling,
        fixed="the rule that guesses, by the caller's word",
        standing=standing,
        condition=condition,
    )
