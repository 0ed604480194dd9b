"""A training as a TOML file says it: data, model, variant, settings, privacy."""

import csv
import io
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from dpnorm.config import Config, read_toml
from dpnorm.data import load
from dpnorm.errors import InputError
from dpnorm.files import replacing, write_text
from dpnorm.privacy import PrivacyConfig
from dpnorm.training.config import TrainConfig
from dpnorm.training.networks import VariantName, build_network
from dpnorm.training.result import TrainedModel
from dpnorm.training.train import train


class TrainingRecipe(Config):
    """One training.

    Attributes:
        data: as `dpnorm.data.load` takes it.
        model: as `dpnorm.models.build` takes it.
        variant: what its BatchNorm layers become; `frozen` takes public statistics.
        training: settings; `training.seed` also draws the initial weights.
        privacy: None for plain training.
    """

    data: str = "digits"
    model: str = "lenet"
    variant: VariantName = "group"
    training: TrainConfig = Field(default_factory=TrainConfig)
    privacy: PrivacyConfig | None = None


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """Reads a recipe; each override is KEY=VALUE with a dotted key and a TOML value.

    A value that is not TOML is taken as a string, so that model=lenet needs no quotes.

    Raises:
        InputError: as `read_toml`, an unknown key, or an override without "=".
    """
    values = read_toml(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not key or not equals:
            raise InputError(f"the override {override!r} should be KEY=VALUE, as training.lr=0.2")
        *parents, last = key.split(".")
        section: Any = values
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise InputError(f"the override {override!r}: {parent!r} is not a section")
        section[last] = _value(text)
    try:
        return TrainingRecipe(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def run_recipe(
    recipe: TrainingRecipe,
    folder: str | Path,
    *,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> TrainedModel:
    """Trains and writes model.safetensors, config.json, history.csv and statement.json.

    Raises:
        InputError: `folder` holds something already, or as `train`.
    """
    from safetensors.torch import save_model

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{str(target)!r} holds something already: take another folder")
    data = load(recipe.data)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        model = build_network(recipe.model, recipe.variant, data)
    trained = train(model, data, recipe.training, recipe.privacy, progress=progress)
    target.mkdir(parents=True, exist_ok=True)
    with replacing(target / "model.safetensors") as temporary:
        save_model(trained.model, str(temporary))
    write_text(target / "config.json", json.dumps(recipe.model_dump(), indent=2) + "\n")
    write_text(target / "history.csv", _as_csv(trained.history))
    if trained.statement is not None:
        write_text(target / "statement.json", trained.statement.to_json() + "\n")
    return trained


def _as_csv(history: Sequence[dict[str, float]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return out.getvalue()


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
