"""dpnorm pool."""

import sys
from pathlib import Path

import typer


def pool(
    config: Path = typer.Argument(
        help="A TOML file as dpnorm train takes it, with a section [pool] (size, outliers, views, "
        "watch_every, watch_norms)."
    ),
    overrides: list[str] | None = typer.Argument(None, metavar="KEY=VALUE", help="pool.size=64"),
    output: Path = typer.Option(Path("runs/pool"), "-o", "--output", help="Folder of the pool."),
    workers: int | None = typer.Option(None, min=1, help="Processes; default one a core."),
) -> None:
    """Train a pool of models on random halves, for attack and audit.

    The same command goes on after a stop or a kill, and a larger pool.size grows the pool in place.
    Exit code 0: all models are trained. 2: bad usage, or a file cannot be written.
    """
    from dpnorm.parallel import start_ahead

    start_ahead()
    from dpnorm.cli.progress import progress_display
    from dpnorm.leakage.pool_recipe import load_pool_recipe, train_recipe_pool

    recipe = load_pool_recipe(config, overrides or [])
    what = f"{recipe.model} ({recipe.variant}) on {recipe.data}"
    print(f"{recipe.pool.size} models: {what}", file=sys.stderr)
    trained = train_recipe_pool(
        recipe, output, workers=workers, progress=progress_display("models")
    )
    accuracy = trained.accuracy
    assert accuracy is not None
    print(
        f"{trained.models} models, {trained.records} records, {int(trained.outlier.sum())} outliers"
    )
    print(f"test accuracy {accuracy.mean():.1%}, from {accuracy.min():.1%} to {accuracy.max():.1%}")
    print(f"pool: {output}; next: dpnorm attack {output}")
