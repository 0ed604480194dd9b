"""What all attacks found on one pool, and how it prints."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.attack_all import attack_all
from dpnorm.leakage.bootstrap import CONFIDENCE
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.memorization import memorization
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.scores import MembershipScores
from dpnorm.leakage.summary import LeakageSummary, Measured, Unresolved
from dpnorm.text import one_line

_NAME, _CELL, _WIDTH = 13, 22, 80
_SHOWN = (0.01, 0.001)  # the false positive rates of the table


@dataclass(frozen=True, eq=False)
class Findings:
    """The attacks on one pool.

    Attributes:
        name: of the pool.
        models: M.
        records: N.
        outliers: how many of the records.
        accuracy: mean over the models, on the test records; None where it was not measured.
        scores: by attack.
        summaries: by attack, those of the scores.
        not_run: why, by attack that the pool does not serve.
        memorized: the share of outliers memorized, or why it is not defined.
    """

    name: str
    models: int
    records: int
    outliers: int
    accuracy: float | None
    scores: dict[str, MembershipScores]
    summaries: dict[str, LeakageSummary]
    not_run: dict[str, str]
    memorized: Estimate | str

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON: all of each summary, and no scores."""
        share = self.memorized
        return {
            "name": self.name,
            "models": self.models,
            "records": self.records,
            "outliers": self.outliers,
            "accuracy": self.accuracy,
            "attacks": {name: summary.to_dict() for name, summary in self.summaries.items()},
            "not_run": self.not_run,
            "outliers_memorized": {"missing": share}
            if isinstance(share, str)
            else {
                "value": share.value,
                "low": share.low,
                "high": share.high,
                "confidence": share.confidence,
            },
        }

    def __str__(self) -> str:
        """Tables of at most 80 columns, one line an attack."""
        blocks = [self._head()]
        names = [group.name for group in next(iter(self.summaries.values())).groups]
        wanted = ["all", *(["outliers"] if self.outliers else [])]
        wanted += [name for name in names if name not in ("all", "outliers")]
        blocks += ["\n".join(self._table(name)) for name in wanted]
        blocks.append("\n".join(self._notes(wanted)))
        return "\n\n".join(blocks)

    def _head(self) -> str:
        parts = [f"{self.models} model{'s' * (self.models != 1)}", f"{self.records} records"]
        if self.outliers:
            parts[-1] += f" ({self.outliers} of them outliers)"
        if self.accuracy is not None:
            parts.append(f"test accuracy {self.accuracy:.1%}")
        return textwrap.fill(f"{one_line(self.name)}: {', '.join(parts)}", _WIDTH)

    def _table(self, name: str) -> list[str]:
        groups = {attack: summary.group(name) for attack, summary in self.summaries.items()}
        first = next(iter(groups.values()))
        title = {"all": "all targets", "outliers": "outliers alone"}.get(name, name)
        heads = ["AUC", *(f"TPR at {100 * fpr:g}% FPR" for fpr in _SHOWN)]
        lines = [
            f"{title}: {first.members} members, {first.others} non-members",
            _line("attack", heads),
        ]
        for attack, group in groups.items():
            values = [group.auc, *(group.tpr[fpr] for fpr in _SHOWN)]
            lines.append(_line(one_line(attack), [_cell(value) for value in values]))
        return lines

    def _notes(self, groups: Sequence[str]) -> list[str]:
        summary = next(iter(self.summaries.values()))
        needed = {
            fpr: value.needed
            for fpr in _SHOWN
            for name in groups
            if isinstance(value := summary.group(name).tpr[fpr], Unresolved)
        }
        resampled = "models and records"
        if self.models == 1:
            resampled = "records (one model: not over trainings)"
        notes = [f"[low, high]: {100 * CONFIDENCE:g}% over resampled {resampled}"]
        if needed:
            rates = [f"{100 * fpr:g}% FPR needs {count}" for fpr, count in needed.items()]
            notes.append(f"below resolution: {', '.join(rates)} non-members")
        if isinstance(self.memorized, Estimate):
            share = self.memorized
            notes.append(
                f"outliers memorized: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}], "
                "P(label | in) - P(label | out)"
            )
        elif self.outliers:
            notes.append(f"outliers memorized: not defined: {self.memorized}")
        if self.models == 1 and self.not_run:
            notes.append(
                f"not run: {', '.join(self.not_run)}: these need shadow models, which come with a "
                "pool: train one with dpnorm pool"
            )
        else:
            notes += [f"not run: {name}: {reason}" for name, reason in self.not_run.items()]
        return [
            line
            for note in notes
            for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        ]


def examine(
    name: str,
    pool: Pool,
    attacks: Sequence[str] | None = None,
    *,
    classes: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Findings:
    """Runs attacks on a pool and sums up what they found.

    Args:
        name: of the pool.
        pool: the models.
        attacks: that must work; None for all that do.
        classes: judge each class alone, too.
        progress: is told whose intervals come next, which take most of the time.

    Raises:
        InputError: as `attack_all`.
    """
    attacked = attack_all(pool, attacks)
    labels = pool.labels if classes else None
    summaries = {}
    for key, scores in attacked.scores.items():
        if progress is not None:
            progress(f"{one_line(name)}: resampling the scores of {key}")
        summaries[key] = scores.summary(labels)
    assert pool.accuracy is not None
    accuracy = float(np.mean(pool.accuracy))
    memorized: Estimate | str
    try:
        memorized = memorization(pool).outliers
    except InputError as error:
        memorized = str(error)
    return Findings(
        name=name,
        models=pool.models,
        records=pool.records,
        outliers=int(pool.outlier.sum()),
        accuracy=None if math.isnan(accuracy) else accuracy,
        scores=attacked.scores,
        summaries=summaries,
        not_run=attacked.not_run,
        memorized=memorized,
    )


def _line(first: str, cells: Sequence[str]) -> str:
    return (first.ljust(_NAME) + "".join(cell.ljust(_CELL) for cell in cells)).rstrip()


def _cell(value: Measured) -> str:
    return "below resolution" if isinstance(value, Unresolved) else str(value)
