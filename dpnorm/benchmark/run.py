"""Running a suite: plan, train what is missing, measure, and write the report."""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from dpnorm import __version__
from dpnorm.benchmark.arms import Arm, plan
from dpnorm.benchmark.cells import Cell, describe
from dpnorm.benchmark.exports import timings_csv, to_csv, to_json
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.measure import measure, refused_row
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.store import Store
from dpnorm.benchmark.suite import Suite
from dpnorm.errors import InputError
from dpnorm.files import write_text
from dpnorm.leakage import Member
from dpnorm.parallel import run_jobs

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
    "a witness. Only proven models are trained privately.",
)


class Progress(Protocol):
    """What a run tells while it works."""

    def begin(self, total: int, finished: int) -> None: ...
    def finished(self, description: str, seconds: float) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


def run_suite(
    suite: Suite,
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> BenchmarkResult:
    """Runs a suite and writes its run folder.

    Cells that are finished in `folder` are not computed again, so that an interrupted run goes on
    where it was. Nothing is written before the whole suite has been planned.

    Args:
        suite: what to run.
        folder: holds cells/, results.csv, timings.csv, results.json, report.md and report.html.
        workers: single-threaded processes, default one a core.
        progress: is told of each finished cell.
        command: the command that makes this run again, for the report.

    Raises:
        DpnormError: what `plan` raises; `folder` is a file or cannot be made.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}: at least 1 is needed")
    if progress is not None:
        progress.say("planning: judging every variant and calibrating the noise")
    arms = plan(suite)
    store = Store(_made(folder))
    members = _train(arms, store, workers, progress)
    if progress is not None:
        progress.say("measuring: attacks and memorization")
    rows, timings = [], []
    for arm in arms:
        if arm.refused:
            rows.append(refused_row(arm))
            continue
        row, timing = measure(arm, [members[cell.name] for cell in arm.cells])
        rows.append(row)
        timings.append(timing)
    result = BenchmarkResult(
        name=suite.name,
        rows=tuple(rows),
        timings=tuple(timings),
        suite=suite.to_dict(),
        versions=versions(),
        command=command,
        notes=NOTES,
    )
    write_report(result, store.folder)
    return result


def write_report(result: BenchmarkResult, folder: Path) -> None:
    """Writes the five files of a run's report."""
    for name, text in (
        ("results.csv", to_csv(result)),
        ("timings.csv", timings_csv(result)),
        ("results.json", to_json(result)),
        ("report.md", to_markdown(result)),
        ("report.html", to_html(result)),
    ):
        write_text(folder / name, text)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import numpy
    import opacus
    import torch

    return {
        "dpnorm": __version__,
        "torch": torch.__version__,
        "opacus": opacus.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def _train(
    arms: Iterable[Arm], store: Store, workers: int | None, progress: Progress | None
) -> dict[str, Member]:
    """Every member by its cell's name; what the store lacks is trained."""
    cells = {cell.name: cell for arm in arms for cell in arm.cells}
    members = {name: m for name, cell in cells.items() if (m := store.load(cell)) is not None}
    missing = [cell for name, cell in cells.items() if name not in members]
    if progress is not None:
        progress.begin(len(cells), len(members))
    try:
        for index, member in run_jobs(Cell.compute, missing, workers=workers):
            cell = missing[index]
            store.save(cell, member)
            members[cell.name] = member
            if progress is not None:
                progress.finished(describe(cell), member.seconds)
    finally:
        if progress is not None:
            progress.end()
    return members


def _made(folder: str | Path) -> Path:
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {str(path)!r}: {error.strerror}") from None
    return path
