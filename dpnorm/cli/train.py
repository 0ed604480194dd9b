"""dpnorm train."""

from pathlib import Path

import typer


def train(
    config: Path = typer.Argument(help="A TOML file: data, model, variant, [training], [privacy]."),
    overrides: list[str] | None = typer.Argument(None, metavar="KEY=VALUE", help="training.lr=0.2"),
    output: Path = typer.Option(
        Path("runs/train"), "-o", "--output", help="Folder for model, history and statement."
    ),
) -> None:
    """Train one model, plain or private, and write it with its statement."""
    import sys

    from dpnorm.training.recipe import load_recipe, run_recipe

    recipe = load_recipe(config, overrides or [])
    trained = run_recipe(
        recipe,
        output,
        progress=lambda e: print(
            f"epoch {e['epoch']:.0f}: loss {e['loss']:.4f}", file=sys.stderr, flush=True
        ),
    )
    print(f"test accuracy {trained.accuracy:.4f}")
    if trained.statement is not None:
        print(trained.statement)
    print(f"model, config, history and statement in {output}")
