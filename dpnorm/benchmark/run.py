"""Running a suite: plan, compute what is missing, collect, and write the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.cells import Cell, is_finished
from dpnorm.benchmark.collect import collect
from dpnorm.benchmark.engines import Engine, open_engine
from dpnorm.benchmark.plan_file import RunPlan, save_plan
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.storage import Storage, open_storage
from dpnorm.benchmark.suite import Suite
from dpnorm.benchmark.tracking import Tracker
from dpnorm.benchmark.work import record_outcome

NOTES = (
    "Accuracy is the mean over the pool's members, each trained on a random half of the training "
    "records, with a 95% Student interval.",
    "Attack AUC and TPR at 1% FPR are over all (model, record) pairs, outliers included; their 95% "
    "intervals resample models and records.",
    "Outliers memorized: how much more often an outlier gets its planted label from models that "
    "saw it than from models that did not.",
    "Epsilon is of one member, for adding or removing one record, by Poisson sampling. Noise and "
    "sampling of a benchmark come from a fixed seed: its models have no guarantee.",
    "The verdict is of dpnorm's check, in training mode with cross entropy: 'proven' means that "
    "each record's contribution to a step is its own, on the path that was executed; 'refuted' has "
    "a witness. Only proven models are trained privately, unless the suite allows others.",
)


class Progress(Protocol):
    """What a run tells while it works."""

    def begin(self, total: int, finished: int) -> None: ...
    def finished(self, description: str, seconds: float) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


class Silent:
    """A progress that tells nothing."""

    def begin(self, total: int, finished: int) -> None: ...
    def finished(self, description: str, seconds: float) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        result: all that its report shows.
        failures: of each cell that failed: its description and what went wrong.
    """

    result: BenchmarkResult
    failures: tuple[tuple[str, str], ...]


def run_suite(
    suite: Suite,
    runs: str | Path,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
    command: str = "",
    tracker: Tracker | None = None,
) -> Run:
    """Runs a suite and writes its run folder, RUNS/NAME.

    Cells that are finished in `runs`, by whichever suite, are not computed again, so that a run
    that was stopped or killed goes on where it was. Nothing is written before the whole suite has
    been planned. A cell that fails does not stop the others.

    Args:
        suite: what to run.
        runs: of all runs: a folder, or a URL that fsspec opens. It holds cells/, failures/ and
            NAME/ with run.json, results.csv, results.parquet, results.json, timings.csv, report.md
            and report.html.
        engine: where cells are computed; default processes of this machine, one a core.
        progress: is told of each finished cell.
        command: the command that makes this run again, for the report.
        tracker: is given each finished cell.

    Raises:
        DpnormError: what `plan` raises; a file cannot be written.
    """
    from dpnorm.benchmark.report import write_report  # which brings matplotlib

    told = progress or Silent()
    told.say("planning: judging every variant and calibrating the noise")
    arms = plan(suite)
    storage = open_storage(runs)
    storage.sweep()
    planned = RunPlan.of(suite, arms, command)
    save_plan(storage, planned)
    engine = engine or open_engine()
    stages: list[list[Cell]] = [
        [cell for arm in arms for cell in arm.trained()],
        [arm.measure for arm in arms if arm.measure is not None],
    ]
    failures = _Stages(storage, engine, told, tracker).run(stages)
    storage.sweep()
    result = result_of(planned, storage)
    write_report(result, storage)
    return Run(result, failures)


def result_of(planned: RunPlan, storage: Storage) -> BenchmarkResult:
    """The result of a run, as far as its cells are finished."""
    rows, timings = collect(planned.arms, storage)
    return BenchmarkResult(
        name=planned.suite.name,
        rows=rows,
        timings=timings,
        suite=planned.suite.to_dict(),
        versions=planned.versions,
        command=planned.command,
        notes=NOTES,
        description=planned.suite.description,
        machine=planned.machine,
    )


class _Stages:
    """Computes cells, those of a stage after all of the stages before."""

    def __init__(
        self, storage: Storage, engine: Engine, progress: Progress, tracker: Tracker | None
    ) -> None:
        self._storage, self._engine = storage, engine
        self._progress, self._tracker = progress, tracker
        self._failed: dict[str, tuple[str, str]] = {}

    def run(self, stages: Sequence[Sequence[Cell]]) -> tuple[tuple[str, str], ...]:
        """Computes what the storage lacks; of each cell that failed, what it is and why."""
        distinct = [list({cell.name: cell for cell in stage}.values()) for stage in stages]
        missing = [
            [cell for cell in stage if not is_finished(self._storage, cell)] for stage in distinct
        ]
        total, left = (sum(map(len, parts)) for parts in (distinct, missing))
        self._progress.begin(total, total - left)
        try:
            for cells, lacking in zip(distinct, missing, strict=True):
                self._track([cell for cell in cells if cell not in lacking])
                self._stage(lacking)
        finally:
            self._progress.end()
        return tuple(self._failed.values())

    def _stage(self, cells: list[Cell]) -> None:
        ready = [cell for cell in cells if not self._failed.keys() & set(cell.needs())]
        for index, outcome in self._engine.run(self._storage.url, ready):
            cell = ready[index]
            record_outcome(self._storage, cell, outcome)
            if outcome.error is None:
                self._track([cell])
            else:
                self._failed[cell.name] = (cell.describe(), outcome.error)
                self._progress.say(f"failed: {cell.describe()}: {outcome.error}")
            self._progress.finished(cell.describe(), outcome.seconds)

    def _track(self, finished: list[Cell]) -> None:
        if self._tracker is not None:
            for cell in finished:
                self._tracker.log(cell, self._storage)
