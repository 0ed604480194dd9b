"""Two runs side by side: what differs beyond chance."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.leakage.estimate import Estimate

_Key = tuple[str, str, str, float, int]


@dataclass(frozen=True)
class Difference:
    """One measure of one arm in both runs.

    Attributes:
        arm: dataset, model, variant, target epsilon, seed.
        measure: such as "accuracy" or "lira AUC".
        first: in run A.
        second: in run B.
        change: B - A. Its interval takes the two runs as independent: its sides are the root of
            the sum of the squared sides of both. Runs of the same seed share memberships, so that
            it is too wide for them rather than too narrow.
    """

    arm: _Key
    measure: str
    first: Estimate
    second: Estimate
    change: Estimate

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval of the change leaves zero out."""
        return self.change.low > 0 or self.change.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        first: the name of run A.
        second: of run B.
        differences: of the arms that both have, in the order of A.
        only_first: arms that are in A alone, in words; also those that B did not finish.
        only_second: the same of B.
        settings: keys of the suites that differ: (key, in A, in B).
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    settings: tuple[tuple[str, Any, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "settings": [list(each) for each in self.settings],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "differences": [
                {
                    "arm": _label(each.arm),
                    "measure": each.measure,
                    "first": each.first.value,
                    "second": each.second.value,
                    "change": each.change.value,
                    "low": each.change.low,
                    "high": each.change.high,
                    "beyond_chance": each.beyond_chance,
                }
                for each in self.differences
            ],
        }

    def __str__(self) -> str:
        """At most 80 columns, but for long names."""
        lines = [f"A: {self.first}", f"B: {self.second}"]
        if self.settings:
            lines += ["", "settings that differ"]
            lines += [f"  {key}: {a!r} in A, {b!r} in B" for key, a, b in self.settings]
        arm: _Key | None = None
        for each in self.differences:
            if each.arm != arm:
                arm = each.arm
                lines += ["", _label(arm), f"  {'':12}{'A':>8}{'B':>8}   B - A"]
            change = each.change
            lines.append(
                f"{'*' if each.beyond_chance else ' '} {each.measure:12}{each.first.value:8.3f}"
                f"{each.second.value:8.3f}   {change.value:+.3f} [{change.low:+.3f}, "
                f"{change.high:+.3f}]"
            )
        for name, arms in (("A", self.only_first), ("B", self.only_second)):
            if arms:
                lines += ["", f"measured in {name} alone"] + [f"  {each}" for each in arms]
        if self.differences:
            level = 100 * self.differences[0].change.confidence
            starred = sum(each.beyond_chance for each in self.differences)
            lines += [
                "",
                f"* the {level:g}% interval leaves 0 out: {starred} of {len(self.differences)}; "
                f"chance alone gives about {(1 - level / 100) * len(self.differences):.1f}",
            ]
        return "\n".join(lines)


def compare(first: BenchmarkResult, second: BenchmarkResult) -> Comparison:
    """Compares the arms that two runs have in common."""
    ours, theirs = ({_key(row): row for row in run.rows} for run in (first, second))
    both = [
        key for key in ours if key in theirs and _measured(ours[key]) and _measured(theirs[key])
    ]
    differences = [each for key in both for each in _differences(key, ours[key], theirs[key])]
    return Comparison(
        first.name,
        second.name,
        tuple(differences),
        tuple(_label(k) for k, row in ours.items() if k not in both and _measured(row)),
        tuple(_label(k) for k, row in theirs.items() if k not in both and _measured(row)),
        tuple(_changes(first.suite, second.suite)),
    )


def _differences(key: _Key, a: Row, b: Row) -> Iterator[Difference]:
    ours, theirs = _measures(a), _measures(b)
    for name in dict.fromkeys([*ours, *theirs]):
        first, second = ours.get(name), theirs.get(name)
        if first is not None and second is not None:
            yield Difference(key, name, first, second, _change(first, second))


def _measures(row: Row) -> dict[str, Estimate | None]:
    return {
        "accuracy": row.accuracy,
        "memorized": row.memorized,
        **{f"{attack} AUC": estimate for attack, estimate in row.auc.items()},
        **{f"{attack} TPR": estimate for attack, estimate in row.tpr.items()},
    }


def _change(a: Estimate, b: Estimate) -> Estimate:
    value = b.value - a.value
    down = math.hypot(b.value - b.low, a.high - a.value)
    up = math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, value - down, value + up, min(a.confidence, b.confidence))


def _changes(a: Any, b: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*a, *b]):
        if prefix == "" and key in ("name", "description"):
            continue
        mine, theirs = a.get(key), b.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from _changes(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            yield f"{prefix}{key}", mine, theirs


def _measured(row: Row) -> bool:
    return row.status == "trained"


def _key(row: Row) -> _Key:
    return row.dataset, row.model, row.variant, row.target_epsilon, row.seed


def _label(key: _Key) -> str:
    from dpnorm.benchmark.cells import arm_label

    return arm_label(*key)
