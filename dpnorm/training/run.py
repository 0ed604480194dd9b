"""run_recipe: a recipe is trained in a folder, from the beginning or from where it was stopped."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch

from dpnorm.data import Dataset, load
from dpnorm.errors import DpnormError, InputError
from dpnorm.files import replacing, write_text
from dpnorm.privacy import Ledger
from dpnorm.training.curves import draw_curves
from dpnorm.training.device import best_device
from dpnorm.training.folder import (
    CURVES,
    HISTORY,
    LEDGER,
    MODEL,
    MOMENTS,
    STATEMENT,
    STATEMENT_PAGE,
    RunFolder,
    State,
)
from dpnorm.training.networks import build_network
from dpnorm.training.recipe import TrainingRecipe
from dpnorm.training.released import prepared, release_moments
from dpnorm.training.result import TrainedModel
from dpnorm.training.team import Team
from dpnorm.training.train import train


class Display(Protocol):
    """What a run tells while it works."""

    def say(self, text: str) -> None: ...
    def begin(self, epochs: int) -> None: ...
    def epoch(self, row: dict[str, float]) -> None: ...
    def end(self) -> None: ...


def run_recipe(
    recipe: TrainingRecipe,
    folder: str | Path,
    *,
    display: Display | None = None,
    plots: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedModel:
    """Trains in a folder, and writes there what came out.

    In the end it holds model.safetensors, config.json (the recipe with every open setting filled
    in) and history.csv; of a private training statement.json, statement.md and ledger.json too, and
    moments.json where the inputs were standardized by moments released with noise, which new inputs
    need. A run that was stopped or killed goes on where the same recipe is run in its folder.

    Where torch.distributed is initialized all processes call this alike, with a folder that they
    share; the first one writes.

    Args:
        recipe: what to train.
        folder: of this run alone.
        display: is told of each epoch, in the first process.
        plots: whether curves.png is drawn too.
        should_stop: asked after each step; where it says so the run ends with a checkpoint.

    Raises:
        InputError: the folder holds a finished run, the run of another recipe or something else, or
            another process trains in it; nothing in it is changed then. Or as `train`.
        RefusedError: as `train`.
        StorageError: a file cannot be written; what was written before is whole.
        StoppedError: `should_stop` said so.
    """
    where, device = RunFolder(folder), best_device()
    team = Team.present(device)
    with _first(team) as is_first:
        if is_first:
            where.require_usable()  # which is soon told; the data may take their time
    data = load(recipe.data)
    recipe = recipe.pinned(len(data.train))
    with contextlib.ExitStack() as stack:
        with _first(team) as is_first:
            if is_first:
                state = stack.enter_context(where.entered(recipe))
                if state is State.UNFINISHED and display is not None:
                    display.say(f"going on with the unfinished run in {str(where.path)!r}")
                release_moments(data, recipe, where.path / MOMENTS)
        data, ledger = prepared(data, recipe, where.path / MOMENTS)
        if display is not None:
            stack.callback(display.end)
            display.begin(_epochs(recipe, len(data.train)))
        trained = _trained(recipe, data, ledger, where, device, display, should_stop)
        if team.is_first:
            _write(trained, ledger, where.path)
            if plots:
                privacy = recipe.privacy
                budget = None if privacy is None else privacy.epsilon
                title = f"{recipe.model} ({recipe.variant}) on {recipe.data}"
                draw_curves(trained.history, where.path / CURVES, title=title, budget=budget)
            where.finish()
    return trained


@contextlib.contextmanager
def _first(team: Team) -> Iterator[bool]:
    """The first process goes ahead inside; where that fails, all fail.

    Raises:
        InputError: in the other processes, where the first one failed.
    """
    failure: DpnormError | None = None
    try:
        yield team.is_first
    except DpnormError as error:
        failure = error
    (failed,) = team.any(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise InputError("the first process has failed, and said why")


def _epochs(recipe: TrainingRecipe, records: int) -> int:
    """How many rows the history of a pinned recipe gets."""
    epochs, batch_size = recipe.training.epochs, recipe.training.batch_size
    assert epochs is not None
    assert batch_size is not None
    if recipe.privacy is None or recipe.privacy.steps is None:
        return epochs
    rate = recipe.privacy.sampling_rate or batch_size / records
    return math.ceil(recipe.privacy.steps / math.ceil(1 / rate))


def _trained(
    recipe: TrainingRecipe,
    data: Dataset,
    ledger: Ledger,
    where: RunFolder,
    device: torch.device,
    display: Display | None,
    should_stop: Callable[[], bool] | None,
) -> TrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        model = build_network(recipe.model, recipe.variant, data)
    origin = "unknown" if _brings_weights(recipe.model) else "random"
    return train(
        model.to(device),
        data,
        recipe.training,
        recipe.privacy,
        progress=None if display is None else display.epoch,
        ledger=None if recipe.privacy is None else ledger,
        weights_origin=origin,
        statistics_origin="public" if recipe.variant == "frozen" else origin,
        checkpoint=where.checkpoint,
        should_stop=should_stop,
    )


def _brings_weights(model: str) -> bool:
    """Whether a model is made by its user's own code, which may load weights."""
    scheme, colon, _ = model.partition(":")
    return bool(colon) and scheme not in ("tv", "timm")


def _write(trained: TrainedModel, ledger: Ledger, folder: Path) -> None:
    """Writes the results.

    Raises:
        StorageError: one of them cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    with replacing(folder / MODEL) as temporary:
        try:
            save_model(trained.model, str(temporary))
        except SafetensorError as error:  # which it raises where others raise OSError
            raise OSError(str(error)) from error
    write_text(folder / HISTORY, trained.history.to_csv())
    if trained.statement is not None:
        write_text(folder / STATEMENT, trained.statement.to_json() + "\n")
        write_text(folder / STATEMENT_PAGE, trained.statement.to_markdown())
        ledger.save(folder / LEDGER)
