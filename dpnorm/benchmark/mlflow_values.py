"""What of a finished cell goes to MLflow: parameters, metrics and tags, within its limits."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpnorm.benchmark.cells import AuditCell, Cell, MeasureCell

LONGEST = 6000  # characters of a parameter's value
_CLAIMS = frozenset({"epsilon", "delta", "claimed_epsilon", "exceeded", "history.epsilon"})


@dataclass
class Logged:
    """Of one cell.

    Attributes:
        params: its configuration, as texts.
        metrics: (name, value, step); all values are finite.
        tags: what it is, and the values that are not finite.
    """

    params: dict[str, str]
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any, step: int = 0) -> None:
        """Takes down a number; None is left out, and what is not finite becomes a tag."""
        if value is None:
            return
        number = float(value)  # JSON data have the text "inf" for what is infinite
        if math.isfinite(number):
            self.metrics.append((name, number, step))
        else:
            self.tags[name] = str(number)


def logged(cell: Cell, facts: Mapping[str, Any]) -> Logged:
    """What is logged of a cell with these facts. A void claim is a tag, and no metric."""
    flat = dict(_flat(cell.to_dict()))
    flat["target_epsilon"] = flat.pop("epsilon")  # what was asked for, which nothing may fulfil
    found = Logged({name: value[:LONGEST] for name, value in flat.items()})
    if isinstance(cell, MeasureCell):
        numbers = _measured(facts)
    elif isinstance(cell, AuditCell):
        numbers = _audited(facts)
    else:
        numbers = _trained(facts)
    for name, value, step in numbers:
        if not (cell.void and name in _CLAIMS):
            found.add(name, value, step)
    if cell.void:
        found.tags["epsilon"] = "void"
    return found


Numbers = Iterator[tuple[str, Any, int]]


def _trained(facts: Mapping[str, Any]) -> Numbers:
    for name in ("accuracy", "seconds", "peak_bytes"):
        yield name, facts.get(name), 0
    for name in ("epsilon", "delta", "noise_multiplier"):
        yield name, (facts["statement"] or {}).get(name), 0
    for row in facts["history"]:
        for name, value in row.items():
            if name != "epoch":
                yield f"history.{name}", value, int(row["epoch"])


def _audited(facts: Mapping[str, Any]) -> Numbers:
    for name in ("claimed_epsilon", "delta", "exceeded", "accuracy", "seconds"):
        yield name, facts.get(name), 0
    for box in ("white_box", "black_box"):
        for name in ("epsilon", "ceiling", "confidence", "guesses", "correct"):
            yield f"{box}.{name}", facts[box].get(name), 0


def _measured(facts: Mapping[str, Any]) -> Numbers:
    for name in (
        "members",
        "epsilon",
        "delta",
        "noise_multiplier",
        "training_s",
        "attacks_s",
        "peak_bytes",
    ):
        yield name, facts.get(name), 0
    yield from _estimate("accuracy", facts["accuracy"])
    yield from _estimate("memorized", facts["memorized"])
    for kind in ("auc", "tpr", "outlier_auc"):
        for attack, estimate in facts[kind].items():
            yield from _estimate(f"{kind}.{attack}", estimate)


def _estimate(name: str, plain: Mapping[str, Any] | None) -> Numbers:
    if plain is not None:
        yield name, plain["value"], 0
        yield f"{name}.low", plain["low"], 0
        yield f"{name}.high", plain["high"], 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)
