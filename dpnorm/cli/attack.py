"""dpnorm attack."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dpnorm.leakage import Pool
    from dpnorm.leakage.findings import Findings


def attack(
    path: Path = typer.Argument(
        metavar="RUN_OR_POOL",
        help="A pool (NAME.npz or its folder), or the folder of dpnorm train or dpnorm bench.",
    ),
    attacks: str = typer.Option(
        "all",
        metavar="NAMES",
        help="loss,lira and so on; all: those that work here.",
    ),
    classes: bool = typer.Option(False, "--classes", help="Judge each class alone, too."),
    plots: bool = typer.Option(False, "--plots", help="Draw ROC curves, scores and memorization."),
    output: Path | None = typer.Option(
        None,
        "-o",
        "--output",
        metavar="DIR",
        help="Folder of the plots; default plots, in the folder or beside the file.",
    ),
    format: str = typer.Option("text", metavar="FORMAT", help="text or json."),
    model: str | None = typer.Option(
        None, metavar="MODULE:FACTORY", help="Of a run whose model is your own code, its name."
    ),
) -> None:
    """Can an attacker tell which records a model was trained on?

    Prints AUC and TPR at 1% and 0.1% FPR of each attack, over all targets and for outliers alone,
    with 95% intervals, then the share of outliers memorized. The trained models of a pool are each
    other's shadows; on one model only attacks without shadows work.

    Exit code 0: measured. 2: bad usage, or an attack that was named cannot work here.
    """
    from dpnorm.errors import InputError, unknown_name
    from dpnorm.leakage.attack_all import parse_attacks
    from dpnorm.leakage.findings import examine

    if format not in ("text", "json"):
        raise unknown_name("format", format, ["text", "json"])
    if output is not None and not plots:
        raise InputError("-o is the folder of the plots, and goes with --plots")
    names = parse_attacks(attacks)
    found = []
    for title, pool in opened(path, model):
        found.append(examine(title, pool, names, classes=classes, progress=_say))
    files = _drawn(found, path, output) if plots else []
    _print(found, files, format)


def opened(path: Path, model: str | None) -> "list[tuple[str, Pool]]":
    """The pools of a run or a pool, by name."""
    from dpnorm.leakage import open_pools

    if (path / "run.json").is_file():
        from dpnorm.benchmark.pools import run_pools

        return run_pools(path)
    return open_pools(path, factory=model)


def _drawn(found: "list[Findings]", path: Path, output: Path | None) -> list[Path]:
    from dpnorm.leakage.opened import course_at
    from dpnorm.leakage.plots.folder import draw_plots

    folder = output or (path if path.is_dir() else path.parent) / "plots"
    _say(f"drawing into {folder}")
    return draw_plots(found, folder, course=course_at(path))


def _print(found: "list[Findings]", files: list[Path], format: str) -> None:
    if format == "json":
        import json

        pools = [one.to_dict() for one in found]
        print(json.dumps({"pools": pools, "plots": [str(file) for file in files]}, indent=2))
        return
    print("\n\n".join(map(str, found)))
    if files:
        print(f"\nplots in {files[0].parent}:")
        print("\n".join(f"  {file.name}" for file in files))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
