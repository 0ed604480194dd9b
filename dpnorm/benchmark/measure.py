"""What is measured of an arm's pool, as plain data."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dpnorm.benchmark.cells import MeasureCell
from dpnorm.leakage import Estimate, Member, Pool, attack, memorization
from dpnorm.leakage.course import Course
from dpnorm.leakage.scores import MembershipScores
from dpnorm.privacy import PrivacyStatement

LOW_FPR = 0.01
_CURVE_POINTS = 200
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(cell: MeasureCell, members: Sequence[tuple[Member, int | None]]) -> dict[str, Any]:
    """Accuracy, epsilon, attacks, memorization and gradient norms of a trained pool.

    Args:
        cell: the arm, and what is measured of it.
        members: with the peak memory of their training, in the order of the pool.

    Returns:
        JSON data, of which `collect` makes the row and the timing.
    """
    started = time.perf_counter()
    train = cell.data().train
    trained = [member for member, _ in members]
    pool = Pool.from_members(trained, labels=train.y.numpy(), outlier=train.outlier.numpy())
    scores = {name: attack(pool, name) for name in cell.attacks}
    outliers = bool(pool.outlier.any())
    first = trained[0].statement
    found: dict[str, Any] = {
        "members": len(trained),
        "accuracy": _plain(mean_with_interval([member.accuracy for member in trained])),
        "auc": {name: _plain(each.auc) for name, each in scores.items()},
        "tpr": {name: _plain(each.tpr_at_fpr(LOW_FPR)) for name, each in scores.items()},
        "roc": {name: _curve(each) for name, each in scores.items()},
        "outlier_auc": {
            name: _plain(each.on(pool.outlier).auc) for name, each in scores.items() if outliers
        },
        "memorized": _plain(memorization(pool).outliers) if outliers else None,
        "course": [],
        "norms": [],
        "statement": first,
        "statement_text": "" if first is None else str(PrivacyStatement.from_dict(first)),
    }
    for key in ("epsilon", "delta", "noise_multiplier"):
        values = [float(m.statement[key]) for m in trained if m.statement is not None]
        found[key] = max(values) if values else None
    if cell.watched:
        clip = None if cell.privacy is None else cell.privacy.clip
        course = Course.of([m.course for m in trained], pool.keep, pool.outlier, clip)
        if outliers:
            found["course"] = [
                [int(epoch), _plain(share)]
                for epoch, share in zip(course.epochs, course.memorized(), strict=True)
            ]
        found["norms"] = _norms(course)
    peaks = [peak for _, peak in members if peak is not None]
    return found | {
        "training_s": sum(member.seconds for member in trained),
        "attacks_s": time.perf_counter() - started,
        "peak_bytes": max(peaks) if peaks else None,
    }


def mean_with_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean with Student's interval over at least two values."""
    mean = float(np.mean(values))
    spread = float(stats.sem(values))
    half = spread * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Estimate(mean, mean - half, mean + half, confidence)


def _plain(estimate: Estimate) -> dict[str, float]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
    }


def _curve(scores: MembershipScores) -> dict[str, Any]:
    """The ROC curve at false-positive rates spread evenly on a logarithmic axis."""
    roc = scores.roc()
    others = int((~scores.keep).sum())
    wanted = np.concatenate([[0.0], np.geomspace(1 / others, 1.0, _CURVE_POINTS)])
    at = np.searchsorted(roc.fpr, wanted, side="right") - 1
    return {"fpr": wanted.tolist(), "tpr": roc.tpr[at].tolist(), "non_members": others}


def _norms(course: Course) -> list[dict[str, Any]]:
    """Quantiles over the members' own records, after each watched epoch."""
    watched = len(course.norms)
    if not watched:
        return []
    keep = course.keep[:watched]
    found = []
    for place, epoch in enumerate(course.epochs):
        norms = course.norms[:, place]
        groups = {
            name: np.quantile(norms[chosen], _QUANTILES).tolist() if chosen.any() else []
            for name, chosen in (
                ("rest", keep & ~course.outlier),
                ("outliers", keep & course.outlier),
            )
        }
        found.append({"epoch": int(epoch), **groups})
    return found
