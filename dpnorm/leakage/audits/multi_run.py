"""Epsilon from many trials: Clopper-Pearson intervals of the two error rates."""

import math

from scipy.special import ndtri

from dpnorm.leakage.audits.gaussian import epsilon_of_mu, require_positive
from dpnorm.leakage.audits.inputs import require_level
from dpnorm.leakage.audits.trials import Trials
from dpnorm.leakage.bound import Bound, Standing


def multi_run_epsilon(
    trials: Trials, *, delta: float, independent: bool, confidence: float = 0.95
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
        trials: the counts.
        delta: in (0, 1), or 0 for pure differential privacy.
        independent: whether each trial is a run of its own.
        confidence: in (0, 1).

    Raises:
        InputError: a rate out of range.
    """
    delta, confidence = require_level(delta, confidence)

    def epsilon(counts: Trials) -> float:
        tpr, fpr = counts.limits(confidence)
        sides = ((tpr - delta, fpr), (1 - fpr - delta, 1 - tpr))
        return max([0.0, *(math.log(more / less) for more, less in sides if more > 0)])

    return _bound(
        epsilon(trials),
        epsilon(trials.perfect()),
        trials,
        delta,
        confidence,
        method="Clopper-Pearson trials (arXiv 2006.07709)",
        standing="rigorous" if independent else "heuristic",
        condition="for any mechanism, if the trials are independent" if independent else _SHARED,
    )


def multi_run_gaussian_epsilon(
    trials: Trials, *, delta: float, independent: bool, confidence: float = 0.95
) -> Bound:
    """As `multi_run_epsilon`, if the mechanism's trade-off curve is a Gaussian one.

    The same two Clopper-Pearson limits give mu = Phi^-1(TPR_low) - Phi^-1(FPR_high), and the bound
    is the epsilon of that mu at delta.

    **Guarantee.** If the mechanism is mu-Gaussian differentially private and the trials are
    independent, the bound exceeds the epsilon of that mu with probability at most 1 - confidence.
    It assumes that family, and is heuristic where the trials share a run.

    Source: Nasr et al., arXiv 2302.07956.

    Raises:
        InputError: a rate out of range, or delta = 0.
    """
    delta, confidence = require_level(delta, confidence)
    require_positive(delta)

    def epsilon(counts: Trials) -> float:
        tpr, fpr = counts.limits(confidence)
        if tpr <= fpr:  # a negative mu refutes nothing, whatever its size
            return 0.0
        return epsilon_of_mu(float(ndtri(tpr) - ndtri(fpr)), delta)

    condition = "for Gaussian differential privacy, if the trials are independent"
    return _bound(
        epsilon(trials),
        epsilon(trials.perfect()),
        trials,
        delta,
        confidence,
        method="Clopper-Pearson trials, Gaussian trade-off (arXiv 2302.07956)",
        standing="assumes a trade-off family" if independent else "heuristic",
        condition=condition if independent else _SHARED,
    )


_SHARED = "the trials come from one run and are not independent"


def _bound(
    epsilon: float,
    ceiling: float,
    trials: Trials,
    delta: float,
    confidence: float,
    *,
    method: str,
    standing: Standing,
    condition: str,
) -> Bound:
    return Bound(
        value=epsilon,
        low=epsilon,
        high=math.inf,
        confidence=confidence,
        method=method,
        canaries=trials.count,
        guesses=trials.count,
        correct=trials.correct,
        delta=delta,
        ceiling=ceiling,
        fixed="the rule that guesses, by the caller's word",
        standing=standing,
        condition=condition,
    )
