"""Black-box audits of the models of a pool, whose memberships are fair coins."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.audits.audit import audit
from dpnorm.leakage.audits.inputs import require_level
from dpnorm.leakage.audits.multi_run import multi_run_epsilon
from dpnorm.leakage.audits.plan import DEFAULT_SHARES, GuessPlan
from dpnorm.leakage.audits.trials import Trials
from dpnorm.leakage.bound import Bound
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.signals import log_odds


@dataclass(frozen=True)
class PoolAudit:
    """One-run audits of every model of a pool; all their bounds hold together.

    Attributes:
        bounds: one a model, each at a confidence of 1 - (1 - confidence) / M.
        confidence: that all of them hold.
    """

    bounds: tuple[Bound, ...]
    confidence: float

    @property
    def largest(self) -> Bound:
        """The largest bound; looking for it costs nothing, since all hold together."""
        return max(self.bounds, key=float)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "confidence": self.confidence,
            "largest": self.largest.to_dict(),
            "models": [bound.to_dict() for bound in self.bounds],
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        positive = sum(bound.value > 0 for bound in self.bounds)
        return "\n".join(
            [
                f"the largest of {len(self.bounds)} models: {self.largest}",
                f"  {positive} of {len(self.bounds)} bounds are above 0; all hold together with "
                f"{100 * self.confidence:g}% confidence",
                "  Losses of one run are a weak attack: a bound of 0 is no sign of safety.",
            ]
        )


def audit_pool(
    pool: Pool,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "one-run",
    share: float | Sequence[float] = DEFAULT_SHARES,
) -> PoolAudit:
    """Bounds the epsilon of each model of a pool by the losses of its records.

    Every record is a canary: in a pool its membership in each model is a fair coin of its own. The
    score is the logit-scaled confidence of the model under audit alone. How many guesses are made
    follows from the number of records. M models are M looks, so each bound gets the M-th part of
    the error.

    **Guarantee.** As `audit`, for pools whose membership is that of `draw_membership`: the coins of
    one model are fair and independent over the records. (Those of the other models are not, given
    them, as a record in all models or in none is drawn again; nothing here looks at the others.)
    What is no such pool cannot be told from the file: one trained model, whose members no coin
    drew, least of all, and so fewer than 8 models are refused.

    Args:
        pool: of at least 8 models.
        delta: at which epsilon is bounded.
        confidence: of all bounds together.
        method: "one-run" or "gaussian", see `audit`.
        share: of the records that is guessed, or several, as in `GuessPlan.two_sided`.

    Raises:
        InputError: a small pool, or numbers out of range.
    """
    if pool.models < 8:
        raise InputError(
            f"the pool has {pool.models} model(s); an audit takes 8 at least, whose members were "
            "drawn by coins, as those of one trained model were not: dpnorm pool ... pool.size=8, "
            "or audit a training with canaries (dpnorm audit RECIPE)"
        )
    delta, confidence = require_level(delta, confidence)
    plan = GuessPlan.two_sided(pool.records, share)
    scores = log_odds(pool).mean(axis=2)
    each = 1 - (1 - confidence) / pool.models
    bounds = tuple(
        audit(plan, scores[m], pool.keep[m], delta=delta, confidence=each, method=method)
        for m in range(pool.models)
    )
    return PoolAudit(bounds, confidence)


def audit_pool_record(
    pool: Pool, *, delta: float, confidence: float = 0.95, record: int | None = None
) -> Bound:
    """Bounds epsilon by one record over the models of a pool (multi-run, Clopper-Pearson).

    Each model is one trial: its coin for the record and its training are its own. The threshold on
    the loss is the one that tells best on the first half of the models; the trials are the second
    half, which had no part in it. With few models the ceiling is low.

    **Guarantee.** As `multi_run_epsilon`. `draw_membership` draws a record again that is in all
    models or in none, which ties the trials' other records together. This differs from fair coins
    with probability N / 2^(M // 2) at most, also where the pool has grown; so much is taken off the
    error that the bound may make. Where it is more than half of that error, the bound is marked
    heuristic. The score is the model's own loss: one that reads other models, as shadows, would
    tie the trials together. Models that share a training seed would, too.

    Args:
        pool: of at least 4 models.
        delta: at which epsilon is bounded.
        confidence: of the bound.
        record: fixed without a look at the pool; default the first outlier, or else record 0.

    Raises:
        InputError: no such record, too few models, or trials of one kind only.
    """
    place = record if record is not None else int(np.argmax(pool.outlier))
    if not 0 <= place < pool.records:
        raise InputError(f"record {place} was asked for; the pool has {pool.records}, from 0")
    delta, confidence = require_level(delta, confidence)
    half = pool.models // 2
    if half < 2:
        raise InputError(f"the pool has {pool.models} models; 4 at least are needed for trials")
    scores, keep = log_odds(pool).mean(axis=2)[:, place], pool.keep[:, place]
    ordered = np.sort(scores[:half])
    candidates = [-np.inf, *((ordered[1:] + ordered[:-1]) / 2), np.inf]
    right = [int((keep[:half] == (scores[:half] >= c)).sum()) for c in candidates]
    threshold = candidates[int(np.argmax(right))]
    guessed, inside = scores[half:] >= threshold, keep[half:]
    if inside.all() or not inside.any():
        raise InputError(
            f"record {place} is {'in all' if inside.any() else 'in none'} of the {len(inside)} "
            "models of the trials, which need both kinds: train more models"
        )
    trials = Trials(
        true_positives=int((guessed & inside).sum()),
        members=int(inside.sum()),
        false_positives=int((guessed & ~inside).sum()),
        nonmembers=int((~inside).sum()),
    )
    tied = pool.records * 0.5**half
    independent = tied <= (1 - confidence) / 2
    level = confidence + tied if independent else confidence
    bound = multi_run_epsilon(trials, delta=delta, independent=independent, confidence=level)
    fixed = f"record {place}; the threshold on its loss, from the first {half} models"
    condition = bound.condition if independent else _TIED
    return dataclasses.replace(bound, fixed=fixed, confidence=confidence, condition=condition)


_TIED = (
    "records in all or no models were drawn again: with so few models trials are not independent"
)
