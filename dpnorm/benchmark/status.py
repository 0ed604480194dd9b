"""How far a run is."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.cells import Cell, read_facts
from dpnorm.benchmark.plan_file import RunPlan
from dpnorm.benchmark.storage import Storage
from dpnorm.benchmark.work import recorded_error

STATES = ("finished", "failed", "damaged", "missing")


@dataclass(frozen=True)
class ArmStatus:
    """One arm: how many of its cells are in which state.

    Attributes:
        arm: in a few words.
        cells: how many, by state; see `STATES`.
        refused: why it is not trained, or "".
        errors: of its failed cells.
    """

    arm: str
    cells: dict[str, int]
    refused: str
    errors: tuple[str, ...]


@dataclass(frozen=True)
class RunStatus:
    """A run, between its beginning and its end.

    Attributes:
        name: of the run.
        arms: in the order of the report.
        seconds: that the finished cells took, together.
        same_code: False where other code, of dpnorm or below it, planned the run: its cells
            will not be taken for those of this code.
    """

    name: str
    arms: tuple[ArmStatus, ...]
    seconds: float
    same_code: bool

    def count(self, state: str) -> int:
        """How many cells of all arms are in a state."""
        return sum(arm.cells[state] for arm in self.arms)

    @property
    def total(self) -> int:
        """How many cells there are."""
        return sum(self.count(state) for state in STATES)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.name,
            "cells": {state: self.count(state) for state in STATES} | {"total": self.total},
            "seconds_of_finished_cells": self.seconds,
            "same_code": self.same_code,
            "arms": [
                {"arm": a.arm, "cells": a.cells, "refused": a.refused, "errors": list(a.errors)}
                for a in self.arms
            ],
        }

    def __str__(self) -> str:
        counts = ", ".join(
            f"{self.count(s)} {s}" for s in STATES if s == "finished" or self.count(s)
        )
        lines = [f"{self.name}: {self.total} cells: {counts}"]
        width = max((len(arm.arm) for arm in self.arms), default=0)
        for arm in self.arms:
            total = sum(arm.cells.values())
            text = f"{arm.cells['finished']:3} of {total}" if total else "refused"
            others = "".join(
                f", {arm.cells[state]} {state}" for state in STATES[1:3] if arm.cells[state]
            )
            lines.append(f"  {arm.arm:{width}}  {text}{others}")
            lines += [f"      {error}" for error in arm.errors]
        if not self.same_code:
            lines.append(
                "planned by other code (dpnorm, torch, Opacus or NumPy): its cells are kept, and "
                "this code computes its own"
            )
        return "\n".join(lines)


def status_of(planned: RunPlan, storage: Storage) -> RunStatus:
    """Looks at every cell of a run; nothing is computed."""
    arms = [_status(arm, storage) for arm in planned.arms]
    return RunStatus(
        planned.suite.name,
        tuple(status for status, _ in arms),
        sum(seconds for _, seconds in arms),
        planned.same_code(),
    )


def _status(arm: Arm, storage: Storage) -> tuple[ArmStatus, float]:
    cells, seconds, errors = Counter[str](), 0.0, []
    for cell in arm.cells():
        state, took, error = _state(cell, storage)
        cells[state] += 1
        seconds += took
        errors += [error] if error else []
    counts = {state: cells[state] for state in STATES}
    return ArmStatus(arm.label, counts, arm.summary if arm.refused else "", tuple(errors)), seconds


def _state(cell: Cell, storage: Storage) -> tuple[str, float, str]:
    facts = read_facts(storage, cell)
    if facts is not None:
        return "finished", float(facts.get("seconds", facts.get("attacks_s", 0.0))), ""
    error = recorded_error(storage, cell)
    if error is not None:
        return "failed", 0.0, f"{cell.describe()}: {error}"
    return ("missing" if storage.read(cell.file) is None else "damaged"), 0.0, ""
