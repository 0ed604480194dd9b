"""Targets sorted by their score once, so that each weighted ROC curve is two cumulative sums."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Roc:
    """False and true positive rates at each distinct threshold, from (0, 0) to (1, 1)."""

    fpr: Floats
    tpr: Floats

    @property
    def area(self) -> float:
        """P[a member scores higher than a non-member] + half of P[they tie]."""
        return float(np.trapezoid(self.tpr, self.fpr))

    def tpr_at(self, fpr: float) -> float:
        """The largest TPR of a threshold whose FPR is at most `fpr`; no interpolation."""
        # FPRs never fall along the curve; the tolerance is for shares such as 3/300 <= 0.01
        allowed = np.searchsorted(self.fpr, fpr * (1 + 1e-12), side="right")
        return float(self.tpr[allowed - 1])


@dataclass(frozen=True, eq=False)
class Ranking:
    """All targets (m, n), highest score first."""

    member: NDArray[np.bool_]
    model: NDArray[np.int64]
    record: NDArray[np.int64]
    ends: NDArray[np.int64]  # last position of each run of equal scores

    @classmethod
    def of(cls, scores: Floats, keep: NDArray[np.bool_]) -> "Ranking":
        order = np.argsort(-scores, axis=None, kind="stable")
        ranked = scores.ravel()[order]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        model, record = np.divmod(order, scores.shape[1])
        return cls(keep.ravel()[order], model, record, ends)

    def curve(self, models: Floats | None = None, records: Floats | None = None) -> Roc | None:
        """The ROC curve where target (m, n) counts models[m] * records[n] times.

        None if the weights leave no member or no non-member.
        """
        if models is None or records is None:
            weight = np.ones(len(self.member))
        else:
            weight = models[self.model] * records[self.record]
        members = np.cumsum(weight * self.member)[self.ends]
        others = np.cumsum(weight)[self.ends] - members
        if members[-1] == 0 or others[-1] == 0:
            return None
        return Roc(
            fpr=np.append(0.0, others / others[-1]),
            tpr=np.append(0.0, members / members[-1]),
        )
