"""Influence of Feldman and Zhang (arXiv 2008.03703): what a record does for the others' labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.bootstrap import CONFIDENCE
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.indices import chosen_indices
from dpnorm.leakage.memorization import memorization
from dpnorm.leakage.pool import Pool

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

MEMORIZED = 0.25  # the thresholds of the paper
INFLUENTIAL = 0.15
_BLOCK = 1024  # records whose influence is computed at once


@dataclass(frozen=True, eq=False)
class InfluencePairs:
    """The pairs of a memorized record and a target that it decides.

    Attributes:
        record: int64[P], the index of the influential record in the pool.
        target: int64[P], the index of what it influences: a test record, or a record of the pool.
        value: float32[P], the influence, largest first.
        threshold: the smallest influence of a pair.
        memorization: the smallest memorization of its record.
        by_chance: how many pairs the same records would have without any influence: the mean and
            the middle 95% over permutations of who was trained on them.
    """

    record: NDArray[np.int64]
    target: NDArray[np.int64]
    value: Floats
    threshold: float
    memorization: float
    by_chance: Estimate

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        found = (self.record.tolist(), self.target.tolist(), self.value.tolist())
        return iter(zip(*found, strict=True))

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; `pairs` are (record, target, value)."""
        return {
            "threshold": self.threshold,
            "memorization": self.memorization,
            "by_chance": {
                "value": self.by_chance.value,
                "low": self.by_chance.low,
                "high": self.by_chance.high,
                "confidence": self.by_chance.confidence,
            },
            "pairs": [list(pair) for pair in self],
        }

    def __str__(self) -> str:
        """The ten strongest pairs, in at most 80 columns."""
        chance = self.by_chance
        lines = [
            f"{len(self)} pairs with influence >= {self.threshold:g} and memorization >= "
            f"{self.memorization:g}",
            f"by chance alone: {chance.value:.1f} (95%: {chance.low:g} to {chance.high:g})",
        ]
        if len(self) and len(self) <= chance.high:
            lines.append("no more than chance gives: do not read single pairs; train more models")
        if len(self):
            lines.append(f"{'record':>10}{'target':>10}{'influence':>12}")
        for record, target, value in list(self)[:10]:
            lines.append(f"{record:10d}{target:10d}{value:12.3f}")
        if len(self) > 10:
            lines.append(f"... and {len(self) - 10} more")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Influence:
    """How much more often targets get their label from models that saw a record.

    Attributes:
        values: float32[R, T], each in [-1, 1]: P[correct on t | r in] - P[correct on t | r out].
            NaN where a share has no model: always where r and t are the same record, elsewhere
            with few models.
        memorization: float64[R], each record's influence on itself, over all models.
        records: int64[R], the rows' records in the pool.
        on: "records": target t is record t of the pool; "test": test record t.
        keep: bool[M, R], which model saw which of the records.
        correct: bool[M, T], whether model m predicts target t's label.
        allowed: bool[M, T], the models that a target is judged by.
    """

    values: Floats
    memorization: NDArray[np.float64]
    records: NDArray[np.int64]
    on: Literal["records", "test"]
    keep: Bools
    correct: Bools
    allowed: Bools

    def standard_error(self) -> Floats:
        """The standard error of each value, float32[R, T].

        sqrt(p (1 - p) / (n + 2), summed over the two shares) with p = (correct + 1) / (n + 2)
        (Agresti and Caffo, 2000): a share of 0 or 1 among few models is not taken for certain.
        NaN where the value is.
        """
        errors = np.empty_like(self.values)
        for block, inside, outside in _shares(self.keep, self.correct, self.allowed):
            spread = np.zeros_like(errors[block])
            for hits, models in (inside, outside):
                share = (hits + 1) / (models + 2)
                spread += share * (1 - share) / (models + 2)
            errors[block] = np.sqrt(spread)
        errors[np.isnan(self.values)] = np.nan
        return errors

    def pairs(
        self,
        threshold: float = INFLUENTIAL,
        memorization: float = MEMORIZED,
        *,
        permutations: int = 20,
        seed: int = 0,
    ) -> InfluencePairs:
        """The pairs whose record is memorized and whose target it decides.

        What chance alone gives is counted on the same memorized records, with each one's column of
        `keep` shuffled over the models: it is then trained on by as many models, and has no
        influence. Records that seem memorized by chance only, in models that are right more often
        on everything, have a few pairs more than that.

        Args:
            threshold: the smallest influence; 0.15 in the paper.
            memorization: the smallest memorization of the record; 0.25 in the paper.
            permutations: how many, at least 1.
            seed: of the permutations.

        Raises:
            InputError: a threshold outside (0, 1] or no permutation.
        """
        if not 0 < threshold <= 1 or permutations < 1:
            raise InputError(
                f"threshold is {threshold} and permutations {permutations}: a number above 0, at "
                "most 1, and at least 1 permutation are needed"
            )
        memorized = np.flatnonzero(self.memorization >= memorization)
        strong = self.values[memorized] >= threshold
        row, target = np.nonzero(strong)
        value = self.values[memorized[row], target]
        order = np.argsort(-value, kind="stable")
        generator = np.random.default_rng(seed)
        counts = []
        for _ in range(permutations):
            shuffled = generator.permuted(self.keep[:, memorized], axis=0)
            null = _values(shuffled, self.correct, self.allowed)
            if self.on == "records":
                null[np.arange(len(memorized)), self.records[memorized]] = np.nan
            counts.append(int((null >= threshold).sum()))
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(counts, [tail, 1 - tail], method="inverted_cdf")
        return InfluencePairs(
            record=self.records[memorized[row]][order],
            target=target[order].astype(np.int64),
            value=value[order],
            threshold=threshold,
            memorization=memorization,
            by_chance=Estimate(float(np.mean(counts)), float(low), float(high), CONFIDENCE),
        )


def influence(
    pool: Pool,
    *,
    on: Literal["records", "test"] = "records",
    records: ArrayLike | None = None,
) -> Influence:
    """infl(i, j) = P[model predicts y_j | i in its training set] - P[... | i not in it].

    The shares are over the models of the pool; a prediction is the argmax of the logits averaged
    over the views. On the pool's own records only the models that were *not* trained on j judge
    j, as its own membership decides far more than anyone else's; i's influence on itself is
    `memorization`, and NaN among the values. Test records were in no model, and all models judge
    them (the paper's measure).

    A value from M models has a standard error of up to 1 / sqrt(M), on the pool's own records
    sqrt(2 / M): see `standard_error` and `InfluencePairs.by_chance` before reading single pairs.

    Args:
        pool: M models, N records.
        on: "records" (T = N) or "test" (T test records).
        records: int[R], whose influence; default all. It takes 4 R T bytes.

    Raises:
        InputError: an unknown `on`, a pool without test records, records that are not in the pool,
            or a record that all models saw, or none did.
    """
    if on not in ("records", "test"):
        raise unknown_name("on", on, ("records", "test"))
    chosen = chosen_indices(records, pool.records, "records of the pool")
    itself = memorization(pool)
    keep = pool.keep[:, chosen]
    if on == "records":
        correct, allowed = itself.correct, ~pool.keep
    else:
        if pool.test_logits is None or pool.test_labels is None:
            raise InputError(
                "the pool has no test_logits and test_labels, so there is no influence on test "
                "records: train it with them, or take on='records'"
            )
        correct = pool.test_logits.argmax(axis=-1) == pool.test_labels
        allowed = np.ones_like(correct)
    values = _values(keep, correct, allowed)
    if on == "records":
        values[np.arange(len(chosen)), chosen] = np.nan
    return Influence(values, itself.values[chosen], chosen, on, keep, correct, allowed)


def _values(keep: Bools, correct: Bools, allowed: Bools) -> Floats:
    values = np.empty((keep.shape[1], correct.shape[1]), np.float32)
    for block, (hits_in, models_in), (hits_out, models_out) in _shares(keep, correct, allowed):
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no such model
            np.subtract(hits_in / models_in, hits_out / models_out, out=values[block])
    return values


Counts = tuple[Floats, Floats]  # models that are right, and models: (block, T) each


def _shares(keep: Bools, correct: Bools, allowed: Bools) -> Iterator[tuple[slice, Counts, Counts]]:
    """Counts of the models with and without each record, a block of records at a time.

    All counts are sums of zeros and ones, exact in float32 up to 2^24 models.
    """
    judging = allowed.astype(np.float32)
    right = (correct & allowed).astype(np.float32)
    all_hits, all_models = right.sum(axis=0), judging.sum(axis=0)
    for start in range(0, keep.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, keep.shape[1]))
        seen = keep[:, block].T.astype(np.float32)
        hits, models = seen @ right, seen @ judging
        yield block, (hits, models), (all_hits - hits, all_models - models)
