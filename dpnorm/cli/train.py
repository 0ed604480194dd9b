"""dpnorm train."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dpnorm.training import TrainedModel


def train(
    config: Path = typer.Argument(
        help="A TOML file: data, model, variant, [training], [privacy], [standardize]."
    ),
    overrides: list[str] | None = typer.Argument(None, metavar="KEY=VALUE", help="training.lr=0.2"),
    output: Path = typer.Option(
        Path("runs/train"), "-o", "--output", help="Folder for model, history and statement."
    ),
    plots: bool = typer.Option(
        False, "--plots", help="Draw loss, accuracy and epsilon into curves.png."
    ),
) -> None:
    """Train one model, plain or private, and write it with its statement.

    Ctrl-C and SIGTERM leave a checkpoint; the same command goes on from it, also after a kill.
    Exit code 0: finished. 2: bad usage, or a file cannot be written. 130, 143: stopped.
    """
    from dpnorm.cli.epochs import epoch_display
    from dpnorm.cli.processes import is_first, process_group
    from dpnorm.cli.signals import stop_requests
    from dpnorm.errors import StoppedError
    from dpnorm.training.recipe import load_recipe
    from dpnorm.training.run import run_recipe

    recipe = load_recipe(config, overrides or [])
    first = is_first()
    display = epoch_display() if first else None
    with stop_requests(quiet=not first) as request, process_group():
        try:
            trained = run_recipe(recipe, output, display=display, plots=plots, should_stop=request)
        except StoppedError as stopped:
            if first:
                print(f"dpnorm: {stopped}; run the same command to go on", file=sys.stderr)
            raise typer.Exit(request.exit_code) from None
    if first:
        _print(trained, output)


def _print(trained: "TrainedModel", output: Path) -> None:
    import textwrap

    from dpnorm.training.folder import RunFolder

    if math.isnan(trained.accuracy):
        print("no test records, so that the accuracy is not known")
    else:
        print(f"test accuracy {trained.accuracy:.1%}")
    if trained.statement is not None:
        for line in str(trained.statement).splitlines():
            print(textwrap.fill(line, 80, subsequent_indent=" " * 6, break_on_hyphens=False))
    names = ", ".join(RunFolder(output).results())
    print(textwrap.fill(f"in {output}: {names}", 80, subsequent_indent=" " * 6))
