"""What a suite will cost: cells, time and disk, from short trainings."""

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.cells import Cell, MemberCell, is_finished
from dpnorm.benchmark.storage import Storage
from dpnorm.data import Dataset
from dpnorm.leakage.members import fresh_model, pool_config
from dpnorm.leakage.observe import observed_logits
from dpnorm.parallel import cores, torch_threads
from dpnorm.training import train
from dpnorm.training.device import best_device
from dpnorm.training.networks import build_network

_EPOCHS = 12  # of a trial at most, each of two batches
_LONG = 2.0  # seconds of them that are enough
_OVERHEAD = 1.15  # measures, reading and writing on top of the training


@dataclass(frozen=True)
class ArmCost:
    """One arm.

    Attributes:
        arm: in a few words.
        cells: how many.
        missing: how many of them are not computed yet.
        seconds: of one core, for the missing ones.
        bytes: on disk, of all.
        refused: why it is not trained, or "".
    """

    arm: str
    cells: int
    missing: int
    seconds: float
    bytes: int
    refused: str


@dataclass(frozen=True)
class SuiteCost:
    """All arms of a suite.

    Attributes:
        name: of the suite.
        arms: in its order.
        workers: cells that are computed at once.
    """

    name: str
    arms: tuple[ArmCost, ...]
    workers: int

    @property
    def cells(self) -> int:
        """How many cells."""
        return sum(arm.cells for arm in self.arms)

    @property
    def missing(self) -> int:
        """How many of them are not computed yet."""
        return sum(arm.missing for arm in self.arms)

    @property
    def seconds(self) -> float:
        """Of wall clock, for what is missing."""
        return sum(arm.seconds for arm in self.arms) / self.workers

    @property
    def bytes(self) -> int:
        """On disk, when all is done."""
        return sum(arm.bytes for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.name,
            "workers": self.workers,
            "cells": self.cells,
            "missing": self.missing,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "arms": [dataclasses.asdict(arm) for arm in self.arms],
        }

    def __str__(self) -> str:
        width = max((len(arm.arm) for arm in self.arms), default=3)
        lines = [f"{'arm':{width}}  cells  missing  one core"]
        for arm in self.arms:
            if arm.refused:
                lines.append(f"{arm.arm:{width}}  refused")
            else:
                lines.append(
                    f"{arm.arm:{width}}  {arm.cells:5}  {arm.missing:7}  {_time(arm.seconds):>8}"
                )
        lines.append(
            f"{self.name}: {self.cells} cells, {self.missing} to compute: about "
            f"{_time(self.seconds)} with {self.workers} at once, {self.bytes / 1e6:.0f} MB on disk"
        )
        return "\n".join(lines)


def estimate(
    name: str,
    arms: Sequence[Arm],
    storage: Storage,
    *,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> SuiteCost:
    """Estimates a suite from a few steps of each kind of training.

    Arms that differ only in epsilon or seed cost the same; audits as a member of a whole data set.

    Args:
        name: of the suite.
        arms: of `plan`.
        storage: finished cells in it cost nothing.
        workers: cells at once; default one a core.
        progress: is told which arm is tried.
    """
    known: dict[tuple[Any, ...], float] = {}
    found = []
    for arm in arms:
        cells = arm.cells()
        missing = [cell for cell in cells if not is_finished(storage, cell)]
        seconds = 0.0
        if missing:
            first = arm.members[0]
            private = first.privacy is not None
            key = (arm.dataset, arm.model, arm.variant, private, first.training, first.views)
            if key not in known:
                if progress is not None:
                    progress(f"trying {first.arm}")
                known[key] = _seconds(first)
            trained = [cell for cell in missing if cell.kind != "measure"]
            halves = sum(2 if cell.kind == "audit" else 1 for cell in trained)
            seconds = _OVERHEAD * known[key] * halves
        found.append(
            ArmCost(
                arm.label,
                len(cells),
                len(missing),
                seconds,
                sum(_bytes(cell) for cell in cells),
                arm.summary if arm.refused else "",
            )
        )
    return SuiteCost(name, tuple(found), workers or cores())


def _seconds(cell: MemberCell) -> float:
    """Of one core, for a member: its steps, and a look at every record."""
    data = cell.data()
    with torch_threads():
        step, look = _trial(cell, data)
    steps = (cell.training.epochs or 1) * math.ceil(
        len(data.train) / 2 / (cell.training.batch_size or 1)
    )
    return steps * step + (cell.views * len(data.train) + len(data.test)) * look


def _trial(cell: MemberCell, data: Dataset) -> tuple[float, float]:
    """Seconds of a step and of a look at a record, from a training that ends after a few steps."""
    batch = cell.training.batch_size or 1
    records = min(2 * batch, len(data.train))
    part = dataclasses.replace(data, train=data.train.select(torch.arange(records)))
    changes = {"epochs": _EPOCHS, "evaluate_every": 0}
    config = pool_config(cell.training.model_copy(update=changes), None, records)
    privacy = cell.privacy
    if privacy is not None:
        rate = min(1.0, batch / records)
        steps = _EPOCHS * math.ceil(1 / rate)
        privacy = privacy.model_copy(update={"sampling_rate": rate, "steps": steps})
    watch = _Stopwatch(part)
    with torch.random.fork_rng(), contextlib.suppress(_TrialIsOver):
        torch.manual_seed(0)
        model = fresh_model(
            lambda: build_network(cell.model, cell.variant, data),
            part.train.x,
            private=privacy is not None,
        )
        train(model, part, config, privacy, watch=watch)
    return watch.step, watch.look


class _TrialIsOver(Exception):  # noqa: N818 - no error
    """Ends a trial."""


class _Stopwatch:
    """Called after each epoch of a training, ends it as soon as the time of a step is known.

    Time is the processor's, which no neighbour lengthens, unless a GPU does the work.

    Attributes:
        look: seconds of a look at one record.
    """

    def __init__(self, data: Dataset) -> None:
        self.look = 0.0
        self._x = data.train.x
        self._clock = time.process_time if best_device().type == "cpu" else time.perf_counter
        self._epochs: list[tuple[float, int]] = []  # seconds and steps
        self._since, self._steps = self._clock(), 0

    @property
    def step(self) -> float:
        """Seconds of a step: the median over epochs, without the first, which builds kernels."""
        later = self._epochs[1:] or self._epochs
        return statistics.median(seconds / steps for seconds, steps in later)

    def __call__(self, model: nn.Module, row: dict[str, float]) -> None:
        now, steps = self._clock(), int(row["step"])
        self._epochs.append((now - self._since, steps - self._steps))
        if not self.look:
            observed_logits(model, self._x)
            self.look = (self._clock() - now) / len(self._x)
        if len(self._epochs) > 2 and sum(seconds for seconds, _ in self._epochs[1:]) > _LONG:
            raise _TrialIsOver
        self._since, self._steps = self._clock(), steps


def _bytes(cell: Cell) -> int:
    """The size of a cell's file, about."""
    if not isinstance(cell, MemberCell):
        return 100_000
    data = cell.data()
    records = len(data.train)
    size = records * (1 + 4 * cell.views * data.num_classes) + 4 * len(data.test) * data.num_classes
    if cell.watch_every:
        looks = (cell.training.epochs or 0) // cell.watch_every + 1
        size += looks * records * (9 if cell.watch_norms else 5)
    return size + 5000


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
