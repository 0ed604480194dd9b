"""From scores and a plan made before them to a bound on epsilon."""

import dataclasses
from typing import Any

import numpy as np

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.audits.inputs import require_level, require_members, require_scores
from dpnorm.leakage.audits.one_run import one_run_epsilon
from dpnorm.leakage.audits.one_run_gaussian import one_run_gaussian_epsilon
from dpnorm.leakage.audits.plan import GuessPlan
from dpnorm.leakage.audits.search import BEST_THRESHOLD, best_threshold
from dpnorm.leakage.bound import Bound

METHODS = {"one-run": one_run_epsilon, "gaussian": one_run_gaussian_epsilon}


def audit(
    plan: GuessPlan | None,
    scores: Any,
    members: Any,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "one-run",
    heuristic: str | None = None,
) -> Bound:
    """Guesses by the plan, looks at the membership, and bounds epsilon from one run.

    **Guarantee.** That of the method (`one_run_epsilon`, `one_run_gaussian_epsilon`), if the plan
    and the method were chosen before this membership was known and each canary was in by a fair
    coin of its own, tossed independently of all others. A plan and its k alternatives are judged at
    1 - (1 - confidence) / (k + 1) each, so that all hold together (Bonferroni). Canaries of which
    exactly half are in do not meet this, and nothing here can see it. Several calls with other
    plans or methods on the same canaries, the best reported, void it too.

    Args:
        plan: made before; None only with `heuristic`.
        scores: float[m], one a canary, higher for members.
        members: bool[m], which canaries were in.
        delta: in (0, 1); 0 too for the method "one-run".
        confidence: in (0, 1).
        method: "one-run", for any mechanism, or "gaussian", which assumes a trade-off family.
        heuristic: "best-threshold" to search for the number of guesses that does best on these
            very canaries. The result is marked heuristic: it claims more than its confidence.

    Raises:
        InputError: no plan and no `heuristic`, or both; a plan for more canaries than there are;
            scores or members of another shape; members all in, all out or in such number as fair
            coins hardly ever draw.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if heuristic not in (None, BEST_THRESHOLD):
        raise unknown_name("heuristic", heuristic, [BEST_THRESHOLD])
    if (plan is None) == (heuristic is None):
        raise InputError(
            "an audit takes a GuessPlan made before the scores were seen, such as "
            f"GuessPlan.two_sided(canaries), or None and heuristic={BEST_THRESHOLD!r}; "
            f"{'neither' if plan is None else 'both'} given"
        )
    delta, confidence = require_level(delta, confidence)
    values = require_scores(scores)
    level = {"delta": delta, "confidence": confidence}
    if plan is None:
        inside = require_members(members, values.size)
        return best_threshold(METHODS[method], values, inside, **level)
    plans = (dataclasses.replace(plan, alternatives=()), *plan.alternatives)
    guesses = [each.guess(values) for each in plans]
    truth = np.where(require_members(members, values.size), 1, -1)
    level["confidence"] = 1 - (1 - confidence) / len(plans)
    bounds = [
        METHODS[method](int(np.sum(own == truth)), each.guesses, values.size, **level)
        for each, own in zip(plans, guesses, strict=True)
    ]
    return dataclasses.replace(
        max(bounds, key=float),
        confidence=confidence,
        ceiling=max(bound.ceiling for bound in bounds),
        fixed=str(plan),
    )
