"""dpnorm bench."""

import shlex
import sys
from pathlib import Path

import typer

bench = typer.Typer(help="Run a suite of variants and report accuracy, epsilon and leakage.")


@bench.callback()
def _bench() -> None:
    pass


@bench.command()
def run(
    suite: Path = typer.Argument(help="A suite, such as benchmarks/quick.toml."),
    runs: Path = typer.Option(Path("runs"), help="The run folder is RUNS/NAME-OF-THE-SUITE."),
    engine: str = typer.Option("local", help="local: processes of this machine."),
    workers: int | None = typer.Option(None, min=1, help="Processes; default one a core."),
) -> None:
    """Run a suite; finished cells of an earlier run are kept."""
    from dpnorm.errors import InputError, unknown_name

    if engine == "ray":
        raise InputError("--engine ray is not part of this version: use local")
    if engine != "local":
        raise unknown_name("engine", engine, ["local"])
    from dpnorm.benchmark import load_suite, run_suite
    from dpnorm.benchmark.terminal import render_terminal
    from dpnorm.cli.progress import progress_display

    wanted = load_suite(suite)
    folder = runs / wanted.name
    command = shlex.join(["dpnorm", "bench", "run", str(suite)])
    result = run_suite(
        wanted, folder, workers=workers, progress=progress_display(), command=command
    )
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(render_terminal(result))
    print(f"report: {folder / 'report.html'}")


@bench.command()
def report(folder: Path = typer.Argument(help="A run folder.")) -> None:
    """Write the report of a run again (not in this version)."""
    from dpnorm.errors import DpnormError

    raise DpnormError("bench report: not part of this version; bench run writes the report")


@bench.command()
def speed() -> None:
    """Measure what each part costs (not in this version)."""
    from dpnorm.errors import DpnormError

    raise DpnormError("bench speed: not part of this version")
