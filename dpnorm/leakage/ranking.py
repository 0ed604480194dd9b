"""Targets sorted by their score once, so that each weighted ROC curve is two cumulative sums."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 512  # targets worked on at a time: with 64 replicates, arrays of 256 KB, near the caches
_RUN = 16  # divides _BLOCK
_TARGETS = np.arange(_BLOCK).reshape(-1, _RUN).T.ravel()  # the target of each row, see _accumulate
_ROWS = np.argsort(_TARGETS)  # the row of each target


@dataclass(frozen=True, eq=False)
class Roc:
    """False and true positive rates at each distinct threshold, from (0, 0) to (1, 1).

    Attributes:
        others: the non-members above each threshold, from 0 to all of them.
        members: the members above it.
    """

    others: Floats
    members: Floats

    @functools.cached_property
    def fpr(self) -> Floats:
        """The share of the non-members above each threshold."""
        return self.others / self.others[-1]

    @functools.cached_property
    def tpr(self) -> Floats:
        """The share of the members above each threshold."""
        return self.members / self.members[-1]

    @property
    def area(self) -> float:
        """P[a member scores higher than a non-member] + half of P[they tie]."""
        # The trapezoids in whole numbers: exact, in whatever order they are added
        twice = (np.diff(self.others) * (self.members[1:] + self.members[:-1])).sum()
        return float(twice / (2 * self.members[-1] * self.others[-1]))

    def tpr_at(self, fpr: float) -> float:
        """The largest TPR of a threshold whose FPR is at most `fpr`; no interpolation."""
        # FPRs never fall along the curve
        allowed = np.searchsorted(self.fpr, _at_most(fpr), side="right")
        return float(self.tpr[allowed - 1])


@dataclass(frozen=True, eq=False)
class Ranking:
    """All targets (m, n), highest score first."""

    member: NDArray[np.bool_]
    model: NDArray[np.int64]
    record: NDArray[np.int64]
    ends: NDArray[np.int64]  # last position of each run of equal scores
    keep: NDArray[np.bool_]  # [M, N], not sorted

    @classmethod
    def of(cls, scores: Floats, keep: NDArray[np.bool_]) -> "Ranking":
        order = np.argsort(-scores, axis=None, kind="stable")
        ranked = scores.ravel()[order]
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        model, record = np.divmod(order, scores.shape[1])
        return cls(keep.ravel()[order], model, record, ends, keep)

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
        return Roc(others=np.append(0.0, others), members=np.append(0.0, members))

    def judge(self, models: Floats, records: Floats, fprs: Sequence[float]) -> Floats:
        """Area, advantage and TPR at each FPR of many weighted curves, none of them ever held.

        The same numbers as from `curve`, to the last digit (the sums are of whole numbers), in
        about a third of the time: one pass over the targets serves all the weightings B, and it
        looks for the largest TPR - FPR, and for the TPR at an FPR, only in blocks of targets that
        may hold it.

        Args:
            models: float64[B, M], whole numbers.
            records: float64[B, N], whole numbers.
            fprs: F rates.

        Returns:
            float64[B, 2 + F]; NaN where the weights leave no member or no non-member.
        """
        members = ((models.astype(np.float32) @ self.keep.astype(np.float32)) * records).sum(axis=1)
        others = models.sum(axis=1) * records.sum(axis=1) - members
        with np.errstate(divide="ignore", invalid="ignore"):
            tally = _Tally(members, others, fprs)
            for above in self._counts(models, records):
                tally.add(*above)
            results = tally.results()
        results[(members == 0) | (others == 0)] = np.nan
        return results

    def _counts(self, models: Floats, records: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Block by block the members and the others above each threshold: float64[E + 1, B].

        Row 0 repeats the last threshold of the block before, at first (0, 0). The arrays are the
        same at each step, with other numbers in them.
        """
        weightings = len(models)
        w_models = np.vstack([models.T, np.zeros(weightings)])  # the last row is for padding
        w_records = np.ascontiguousarray(records.T)
        left, right = np.empty((2, _BLOCK, weightings))
        counts = np.empty((2, _BLOCK, weightings))
        above = np.zeros((2, _BLOCK + 1, weightings))
        before = np.zeros((2, weightings))
        starts = np.arange(0, len(self.member), _BLOCK)
        firsts = np.searchsorted(self.ends, np.append(starts, len(self.member)))
        for start, first, behind in zip(starts, firsts[:-1], firsts[1:], strict=True):
            block = slice(start, start + _BLOCK)
            model, record, member = self.model[block], self.record[block], self.member[block]
            if len(model) < _BLOCK:
                padding = 0, _BLOCK - len(model)
                model = np.pad(model, padding, constant_values=len(self.keep))
                record, member = np.pad(record, padding), np.pad(member, padding)
            # mode="clip" spares NumPy a copy; no index is out of range
            np.take(w_models, model[_TARGETS], axis=0, out=left, mode="clip")
            np.take(w_records, record[_TARGETS], axis=0, out=right, mode="clip")
            np.multiply(left, right, out=counts[1])
            np.multiply(counts[1], member[_TARGETS].astype(np.float64)[:, None], out=counts[0])
            before = _accumulate(counts, before)
            if first == behind:
                continue  # all of the block ties with what follows
            found = slice(1, behind - first + 1)
            for side in (0, 1):
                rows = _ROWS[self.ends[first:behind] - start]
                np.take(counts[side], rows, axis=0, out=above[side, found], mode="clip")
            above[1, found] -= above[0, found]
            yield above[0, : found.stop], above[1, : found.stop]
            above[:, 0] = above[:, behind - first]


class _Tally:
    """What `judge` knows of B curves, of which it is shown one block of thresholds after another.

    Attributes:
        members: float64[B], all of them.
        others: float64[B].
    """

    def __init__(self, members: Floats, others: Floats, fprs: Sequence[float]) -> None:
        self.members, self.others = members, others
        self._limits = [_at_most(fpr) for fpr in fprs]
        self._twice_area = np.zeros(len(members))
        self._advantage = np.zeros(len(members))
        self._tprs = np.ones((len(fprs), len(members)))  # of an FPR that is never exceeded

    def add(self, members: Floats, others: Floats) -> None:
        """Takes the counts above the next thresholds: float64[E + 1, B], the first one known."""
        passed = np.diff(others, axis=0)
        self._twice_area += np.einsum("eb,eb->b", passed, members[1:])
        self._twice_area += np.einsum("eb,eb->b", passed, members[:-1])
        fpr_first, fpr_last = others[0] / self.others, others[-1] / self.others
        if (members[-1] / self.members - fpr_first > self._advantage).any():
            gaps = members / self.members - others / self.others
            self._advantage = np.maximum(self._advantage, gaps.max(axis=0))
        for limit, tprs in zip(self._limits, self._tprs, strict=True):
            crossing = np.flatnonzero((fpr_first <= limit) & (fpr_last > limit))
            if crossing.size:
                within = others[:, crossing] / self.others[crossing] <= limit
                best = members[within.sum(axis=0) - 1, crossing]
                tprs[crossing] = best / self.members[crossing]

    def results(self) -> Floats:
        """float64[B, 2 + F]."""
        area = self._twice_area / (2 * self.members * self.others)
        return np.stack([area, self._advantage, *self._tprs], axis=1)


def _accumulate(counts: Floats, before: Floats) -> Floats:
    """Cumulative sums over the targets of a block, in place: float64[2, _BLOCK, B].

    `np.cumsum` adds one target after another. Here the block is cut into runs of 16 targets, the
    first targets of all runs stand first, then the second ones (`_TARGETS`), and each step adds
    whole slabs of them.

    Args:
        counts: the rows in the order of `_TARGETS`.
        before: float64[2, B], the sums up to the block.

    Returns:
        float64[2, B], the sums up to the end of the block.
    """
    steps = counts.reshape(len(counts), _RUN, _BLOCK // _RUN, -1)
    steps[:, 0, 0] += before
    for i in range(1, _RUN):
        np.add(steps[:, i], steps[:, i - 1], out=steps[:, i])
    steps[:, :, 1:] += np.cumsum(steps[:, -1, :-1], axis=1)[:, None]
    return steps[:, -1, -1].copy()


def _at_most(fpr: float) -> float:
    """The FPR with a tolerance for shares such as 3/300 <= 0.01."""
    return fpr * (1 + 1e-12)
