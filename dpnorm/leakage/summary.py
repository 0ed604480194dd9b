"""What a summary of membership scores holds, and how it prints."""

from collections.abc import Mapping
from dataclasses import dataclass

from dpnorm.errors import unknown_name
from dpnorm.leakage.estimate import Estimate

_GROUP, _CELL = 16, 21  # columns: 16 + 3 * (1 + 20) stay within 80


@dataclass(frozen=True)
class Unresolved:
    """A TPR at an FPR that so few non-members cannot show: not measured, and not 0.

    >>> print(Unresolved(needed=1000, available=640))
    below resolution (needs 1000 non-members, there are 640)
    """

    needed: int
    available: int

    def __str__(self) -> str:
        return f"below resolution (needs {self.needed} non-members, there are {self.available})"


@dataclass(frozen=True)
class Absent:
    """Why a group of targets has no value at all, such as "no members"."""

    reason: str

    def __str__(self) -> str:
        return self.reason


Measured = Estimate | Unresolved | Absent


@dataclass(frozen=True)
class GroupSummary:
    """An attack on some of the targets.

    Attributes:
        name: "all", "class 3" or "outliers".
        records: how many records the group has.
        members: how many of its targets (model, record) are members.
        others: how many are not.
        auc: the area under the ROC curve.
        balanced_accuracy: max (TPR + 1 - FPR) / 2 over the thresholds.
        advantage: max (TPR - FPR) over the thresholds.
        tpr: the TPR at each FPR, by FPR.
    """

    name: str
    records: int
    members: int
    others: int
    auc: Measured
    balanced_accuracy: Measured
    advantage: Measured
    tpr: Mapping[float, Measured]

    def to_dict(self) -> dict[str, object]:
        """Plain values; what was not measured is {"missing": why}."""
        return {
            "name": self.name,
            "records": self.records,
            "members": self.members,
            "others": self.others,
            "auc": _plain(self.auc),
            "balanced_accuracy": _plain(self.balanced_accuracy),
            "advantage": _plain(self.advantage),
            "tpr": {f"{fpr:g}": _plain(value) for fpr, value in self.tpr.items()},
        }


@dataclass(frozen=True)
class LeakageSummary:
    """An attack in numbers: over all targets, per class and for the outliers alone.

    Every interval resamples models and records (`dpnorm.leakage.bootstrap`). Balanced accuracy and
    advantage are at the best threshold on these same targets, which a null attack also profits
    from: small groups show more of them.

    Attributes:
        attack: its name.
        models: how many models the scores are of.
        groups: "all" first, then "class 0", ..., then "outliers".
    """

    attack: str
    models: int
    groups: tuple[GroupSummary, ...]

    def group(self, name: str) -> GroupSummary:
        """The group of that name.

        Raises:
            InputError: there is none.
        """
        found = {group.name: group for group in self.groups}
        if name not in found:
            raise unknown_name("group", name, found)
        return found[name]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "attack": self.attack,
            "models": self.models,
            "groups": [group.to_dict() for group in self.groups],
        }

    def __str__(self) -> str:
        """A table of at most 80 columns, two lines a group."""
        everything = self.groups[0]
        rates = [f"TPR at {100 * fpr:g}% FPR" for fpr in everything.tpr]
        lines = [
            f"attack {self.attack!r}: {self.models} models, {everything.records} records",
            _line("group", ["AUC", "balanced accuracy", "advantage"]),
            _line("in/out", rates),
        ]
        for group in self.groups:
            best = [group.auc, group.balanced_accuracy, group.advantage]
            lines.append(_line(group.name, [_cell(value) for value in best]))
            counts = f"{group.members}/{group.others}"
            lines.append(_line(counts, [_cell(value) for value in group.tpr.values()]))
        values = [value for group in self.groups for value in group.tpr.values()]
        if any(isinstance(value, Unresolved) for value in values):
            lines.append(
                "needs a, has b: below resolution; that FPR needs a non-members, there are b"
            )
        confidence = _confidence(self.groups)
        if confidence is not None:
            lines.append(f"[low, high]: {100 * confidence:g}% over resampled models and records")
        return "\n".join(lines)


def _line(first: str, cells: list[str]) -> str:
    return (first.ljust(_GROUP) + "".join(f" {cell:<{_CELL - 1}}" for cell in cells)).rstrip()


def _cell(value: Measured) -> str:
    if isinstance(value, Unresolved):
        return f"needs {value.needed}, has {value.available}"
    return str(value)


def _plain(value: Measured) -> dict[str, object]:
    if isinstance(value, Estimate):
        return {
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "confidence": value.confidence,
        }
    if isinstance(value, Unresolved):
        return {"missing": str(value), "needed": value.needed, "available": value.available}
    return {"missing": str(value)}


def _confidence(groups: tuple[GroupSummary, ...]) -> float | None:
    found = (group.auc.confidence for group in groups if isinstance(group.auc, Estimate))
    return next(found, None)
