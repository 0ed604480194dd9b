"""dpnorm audit."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dpnorm.leakage import TrainingAudit


class Method(StrEnum):
    """How bounds are found."""

    ONE_RUN = "one-run"
    GAUSSIAN = "gaussian"
    MULTI_RUN = "multi-run"


class Format(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


def audit(
    target: Path = typer.Argument(
        help="A recipe of dpnorm train with [privacy]: it is trained once, with canaries. Or a "
        "pool (folder or npz), or a run of dpnorm bench: their models are audited as they are."
    ),
    overrides: list[str] | None = typer.Argument(None, metavar="KEY=VALUE", help="privacy.clip=2"),
    canaries: int | None = typer.Option(
        None, min=2, help="White-box gradient canaries (recipe); default 1000."
    ),
    spread: int = typer.Option(1, min=1, help="Parameter tensors that a canary has a part in."),
    records: int | None = typer.Option(None, min=2, help="Records as canaries (recipe)."),
    method: Method = typer.Option(Method.ONE_RUN, help="multi-run: one record of a pool."),
    guesses: list[float] | None = typer.Option(
        None, help="Share of the canaries that is guessed; several share the error. Default 0.1 0.4"
    ),
    delta: float | None = typer.Option(
        None, help="For a pool, default 1e-5; a recipe has its own."
    ),
    confidence: float = typer.Option(0.95, help="Of the bounds."),
    seed: int = typer.Option(0, min=0, help="Of the audit's coins (recipe)."),
    format: Format = typer.Option(Format.TEXT, help="text or json."),
    plot: Path | None = typer.Option(
        None, "--plot", metavar="FILE", help="Draw bounds against the claim (recipe): SVG or PNG."
    ),
) -> None:
    """Bound epsilon from below: what canaries show of a private training, or records of a pool.

    Exit code 0: done. 1: a rigorous bound is above the claim. 2: bad usage.
    """
    from dpnorm.errors import InputError

    share: dict[str, Any] = {"share": guesses} if guesses else {}
    if target.suffix == ".toml":
        if delta is not None:
            raise InputError(f"--delta is for a pool; of a recipe: privacy.delta={delta:g}")
        how: dict[str, Any] = {
            "canaries": 1000 if canaries is None else canaries,
            "records": records,
        }
        how |= {"spread": spread, "seed": seed, "confidence": confidence} | share
        _recipe(target, overrides or [], method, format, how, plot)
        return
    if plot is not None:
        raise InputError("--plot draws bounds against a claim, and goes with a recipe")
    if overrides:
        raise InputError(f"{overrides[0]!r}: settings go with a recipe (.toml), not with a pool")
    if canaries is not None or records is not None:
        raise InputError("--canaries and --records go with a recipe: a pool's records are canaries")
    _pools(target, method, share, 1e-5 if delta is None else delta, confidence, format)


def _recipe(
    path: Path,
    overrides: list[str],
    method: Method,
    format: Format,
    how: dict[str, Any],
    plot: Path | None,
) -> None:
    import torch

    from dpnorm.data import load
    from dpnorm.errors import InputError
    from dpnorm.leakage import audit_training
    from dpnorm.training.networks import build_network
    from dpnorm.training.recipe import load_recipe

    recipe = load_recipe(path, overrides)
    if recipe.privacy is None:
        raise InputError(f"{path} has no [privacy]: an audit needs a claim; add privacy.epsilon")
    if recipe.standardize.moments != "none":
        raise InputError("an audit takes standardize.moments = 'none': moments have no canaries")
    if method is Method.MULTI_RUN:
        raise InputError("multi-run takes a pool: a recipe is trained once; take one-run")
    data = load(recipe.data)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        model = build_network(recipe.model, recipe.variant, data)
    print(f"training {recipe.model} ({recipe.variant}) on {recipe.data}", file=sys.stderr)
    found: TrainingAudit = audit_training(
        model,
        data,
        recipe.training,
        recipe.privacy,
        method=str(method),
        **how,
    )
    print(found.to_json() if format is Format.JSON else _wrapped(str(found)))
    if plot is not None:
        from dpnorm.figures import save_figure
        from dpnorm.leakage.plots.bounds import bound_figure

        bounds = (("white-box", found.white_box), ("black-box", found.black_box))
        title = f"{recipe.model} ({recipe.variant}) on {recipe.data}"
        points = [(name, found.claimed, bound) for name, bound in bounds]
        save_figure(bound_figure(points, title), plot)
        print(f"plot: {plot}", file=sys.stderr)
    if found.exceeded:
        raise typer.Exit(1)


def _pools(
    path: Path,
    method: Method,
    share: dict[str, Any],
    delta: float,
    confidence: float,
    format: Format,
) -> None:
    import json

    from dpnorm.cli.attack import opened
    from dpnorm.leakage import audit_pool, audit_pool_record

    results: dict[str, Any] = {}
    for name, pool in opened(path, None):
        if method is Method.MULTI_RUN:
            results[name] = audit_pool_record(pool, delta=delta, confidence=confidence)
        else:
            results[name] = audit_pool(
                pool, delta=delta, confidence=confidence, method=str(method), **share
            )
    if format is Format.JSON:
        print(json.dumps({name: found.to_dict() for name, found in results.items()}, indent=2))
        return
    print("\n\n".join(f"{name}: {_wrapped(str(found))}" for name, found in results.items()))


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(
        textwrap.fill(line, 80, subsequent_indent=" " * 13, break_on_hyphens=False)
        for line in text.splitlines()
    )
