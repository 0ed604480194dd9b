"""From membership scores to their summary, group by group."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.bootstrap import Weights, two_way_at_once
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.operating_points import needed_others
from dpnorm.leakage.ranking import Ranking
from dpnorm.leakage.summary import Absent, GroupSummary, LeakageSummary, Measured, Unresolved

if TYPE_CHECKING:
    from dpnorm.leakage.scores import MembershipScores

FPRS = (0.1, 0.01, 0.001)


def summarize(scores: "MembershipScores", labels: ArrayLike | None = None) -> LeakageSummary:
    """Judges an attack over all targets, in each class and on the outliers alone.

    Args:
        scores: the attack's scores.
        labels: int[N], the records' classes, counted from 0; without them no class is listed.
            Classes up to the highest label are listed, one without records too.

    Raises:
        InputError: the labels are not N integers from 0 on.
    """
    classes = None if labels is None else _checked(labels, scores.outlier.shape)
    groups = tuple(_group(scores, name, mask) for name, mask in _masks(scores, classes))
    return LeakageSummary(scores.attack, len(scores.scores), groups)


def _checked(labels: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    classes = np.asarray(labels)
    if classes.dtype.kind not in "iu" or classes.shape != shape or classes.min() < 0:
        raise InputError(
            f"the labels are {classes.dtype}{list(classes.shape)}; {shape[0]} integers from 0 on, "
            "one a record, are needed (pool.labels)"
        )
    return classes.astype(np.int64)


def _masks(
    scores: "MembershipScores", classes: NDArray[np.int64] | None
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones_like(scores.outlier)
    if classes is not None:
        for label in range(int(classes.max()) + 1):
            yield f"class {label}", classes == label
    yield "outliers", scores.outlier


def _group(scores: "MembershipScores", name: str, mask: NDArray[np.bool_]) -> GroupSummary:
    keep = scores.keep[:, mask]
    members = int(keep.sum())
    others = keep.size - members
    if not members or not others:
        missing = "members" if others else "non-members" if members else "records"
        absent = Absent(f"no {missing}")
        best: list[Measured] = [absent] * 3
        rates: dict[float, Measured] = dict.fromkeys(FPRS, absent)
    else:
        resolved = [fpr for fpr in FPRS if others >= needed_others(fpr)]
        estimates = _estimates(scores.scores[:, mask], keep, resolved)
        best, low = list(estimates[:3]), dict(zip(resolved, estimates[3:], strict=True))
        rates = {fpr: low.get(fpr, Unresolved(needed_others(fpr), others)) for fpr in FPRS}
    return GroupSummary(name, int(mask.sum()), members, others, best[0], best[1], best[2], rates)


def _estimates(
    scores: NDArray[np.float64], keep: NDArray[np.bool_], fprs: list[float]
) -> list[Estimate]:
    """AUC, balanced accuracy, advantage and the TPRs, all from one pass over the targets.

    The same numbers as one `two_way` each with a curve a replicate.
    """
    ranking = Ranking.of(scores, keep)

    def statistics(models: Weights, records: Weights) -> Weights:
        area, gap, *rates = ranking.judge(models, records, fprs).T
        return np.stack([area, (1 + gap) / 2, gap, *rates], axis=1)

    return two_way_at_once(statistics, *scores.shape)
