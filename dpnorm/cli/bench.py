"""dpnorm bench."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dpnorm.benchmark import BenchmarkResult, Suite

bench = typer.Typer(help="Run a suite of variants and report accuracy, epsilon and leakage.")

SUITE = typer.Argument(help="A suite: a TOML file, or one that ships: quick, standard, ...")
RUNS = typer.Option("runs", help="Holds the cells of all runs, and RUNS/NAME of each. Or a URL.")
OVERRIDES = typer.Option(
    None, "--override", "-O", help="An override of the suite by its name, or KEY=VALUE."
)
WORKERS = typer.Option(None, min=1, help="Cells at once; default one a core.")


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


FORMAT = typer.Option(Format.TEXT, help="text or json.")


@bench.callback()
def _bench() -> None:
    pass


@bench.command()
def validate(
    suite: str | None = typer.Argument(None, help="A suite: a TOML file, or one that ships."),
    overrides: list[str] | None = OVERRIDES,
    schema: bool = typer.Option(False, "--schema", help="Print the JSON schema of suites."),
) -> None:
    """Read a suite and say what is wrong with it; nothing is built or trained."""
    import json

    from dpnorm.benchmark import Suite
    from dpnorm.errors import InputError

    if schema:
        print(json.dumps(Suite.model_json_schema(), indent=2))
        return
    if suite is None:
        raise InputError("name a suite, or --schema for the keys that suites have")
    wanted = _suite(suite, overrides)
    arms = len(wanted.datasets) * len(wanted.models) * len(wanted.variants)
    arms *= len(wanted.epsilons) * len(wanted.seeds)
    print(f"{wanted.name}: valid: {arms} arms, {wanted.pool.size} models each")


@bench.command()
def plan(
    suite: str = SUITE,
    overrides: list[str] | None = OVERRIDES,
    runs: str = RUNS,
    workers: int | None = WORKERS,
    format: Format = FORMAT,
) -> None:
    """Judge every variant, and estimate cells, time and disk from short trainings."""
    from dpnorm.benchmark.arms import plan as planned
    from dpnorm.benchmark.estimate import estimate
    from dpnorm.benchmark.storage import open_storage

    wanted = _suite(suite, overrides)
    cost = estimate(
        wanted.name, planned(wanted), open_storage(runs), workers=workers, progress=_say
    )
    _print(cost, format)


@bench.command()
def run(
    suite: str = SUITE,
    overrides: list[str] | None = OVERRIDES,
    runs: str = RUNS,
    engine: str = typer.Option("local", help="local: processes of this machine; or ray."),
    address: str | None = typer.Option(None, help="Of a Ray cluster; default a local one."),
    workers: int | None = WORKERS,
    mlflow: str | None = typer.Option(None, metavar="URI", help="Log each cell to MLflow."),
) -> None:
    """Run a suite; finished cells of an earlier run, of any suite, are kept.

    Exit code 0: done. 1: some cells failed; the others are reported. 2: bad usage.
    """
    from dpnorm.parallel import start_ahead

    if engine == "local":
        start_ahead()
    from rich.console import Console

    from dpnorm.benchmark import open_engine, run_suite
    from dpnorm.benchmark.terminal import render_terminal
    from dpnorm.cli.progress import progress_display

    wanted = _suite(suite, overrides)
    tracker = None
    if mlflow is not None:
        from dpnorm.benchmark.on_mlflow import MlflowTracker

        tracker = MlflowTracker(mlflow, wanted.name)
    done = run_suite(
        wanted,
        runs,
        engine=open_engine(engine, workers=workers, address=address),
        progress=progress_display(),
        command=_command(suite, overrides),
        tracker=tracker,
    )
    Console(file=sys.stdout, highlight=False).print(render_terminal(done.result))
    print(f"report: {runs.rstrip('/')}/{wanted.name}/report.html")
    if done.failures:
        _say(f"{len(done.failures)} cells failed:")
        for cell, error in done.failures:
            _say(f"  {cell}: {error}")
        raise typer.Exit(1)


@bench.command()
def status(
    folder: str = typer.Argument(help="RUNS/NAME of a run."), format: Format = FORMAT
) -> None:
    """How far a run is: its cells by state, and what failed."""
    from dpnorm.benchmark.plan_file import load_plan
    from dpnorm.benchmark.status import status_of

    storage, name = _place(folder)
    _print(status_of(load_plan(storage, name), storage), format)


@bench.command()
def report(folder: str = typer.Argument(help="RUNS/NAME of a run.")) -> None:
    """Write the report again, also of a run that is not finished: what there is of it."""
    from dpnorm.benchmark.report import write_report

    storage, _ = _place(folder)
    write_report(_result(folder), storage)
    print(f"report: {folder.rstrip('/')}/report.html")


@bench.command()
def compare(
    first: str = typer.Argument(metavar="A", help="RUNS/NAME of a run."),
    second: str = typer.Argument(metavar="B", help="RUNS/NAME of another."),
    format: Format = FORMAT,
) -> None:
    """What differs between two runs, and whether beyond chance."""
    from dpnorm.benchmark.compare import compare as compared

    _print(compared(_result(first), _result(second)), format)


@bench.command()
def speed(
    networks: str | None = typer.Option(None, help="Names with commas; default all."),
    only: str | None = typer.Option(None, help="Comparisons and curves with commas."),
    repeats: int | None = typer.Option(None, help="Pairs of timings, at most; at least 3."),
    quick: bool = typer.Option(False, "--quick", help="lenet alone, in three minutes."),
    threads: int = typer.Option(1, help="Of torch; pools have their own."),
    format: str = typer.Option("table", help="table, json or markdown."),
    output: Path | None = typer.Option(None, "-o", "--output", help="Write it to a file instead."),
) -> None:
    """Measure what each part costs, as ratios with intervals, side by side in one run.

    Exit code 0: done. 1: something broke that was to be measured, and says so. 2: bad usage.
    """
    from rich.console import Console

    from dpnorm.benchmark.speed import FORMATS, render, run_speed, terminal
    from dpnorm.errors import unknown_name
    from dpnorm.files import write_text

    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    result = run_speed(
        networks=_names(networks),
        only=_names(only),
        repeats=repeats,
        quick=quick,
        threads=threads,
        progress=_say,
    )
    if output is not None:
        write_text(output, render(result, format))
        print(f"written: {output}")
    elif format == "table":
        Console(file=sys.stdout, highlight=False).print(terminal(result))
    else:
        print(render(result, format))
    if result.failed:
        raise typer.Exit(1)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _suite(name: str, overrides: list[str] | None) -> "Suite":
    from dpnorm.benchmark import load_suite

    return load_suite(name, overrides or ())


def _command(suite: str, overrides: list[str] | None) -> str:
    asked = [part for each in overrides or () for part in ("--override", each)]
    return shlex.join(["dpnorm", "bench", "run", suite, *asked])


def _place(folder: str) -> tuple[Any, str]:
    """The storage of all runs, and the name of this one."""
    from dpnorm.benchmark.storage import open_storage

    if "://" in folder:
        runs, _, name = folder.rstrip("/").rpartition("/")
        return open_storage(runs), name
    path = Path(folder).absolute()
    return open_storage(path.parent), path.name


def _result(folder: str) -> "BenchmarkResult":
    """What a run found: as its cells say, or as it was written if other code planned it."""
    from dpnorm.benchmark.exports import from_json
    from dpnorm.benchmark.plan_file import load_plan
    from dpnorm.benchmark.run import result_of

    storage, name = _place(folder)
    planned = load_plan(storage, name)
    written = storage.read(f"{name}/results.json")
    if written is not None and not planned.same_code():
        return from_json(written.decode())
    return result_of(planned, storage)


def _print(found: Any, format: Format) -> None:
    import json

    print(json.dumps(found.to_dict(), indent=2) if format is Format.JSON else str(found))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
