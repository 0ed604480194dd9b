"""A training as a TOML file says it: data, model, variant, settings, privacy, standardization."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from dpnorm.config import Config, assigned, read_toml
from dpnorm.errors import InputError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training.config import TrainConfig
from dpnorm.training.networks import VariantName


class StandardizeConfig(Config):
    """What the inputs are standardized by before the training.

    Attributes:
        moments: "none" leaves the inputs as they are. "private" takes a mean and a standard
            deviation that are released with noise, in the same account as the training
            (`dpnorm.privatize_moments`). "exact" takes the exact ones, which no account covers,
            and the statement says so.
        noise_multiplier: of the private release. Give this or `epsilon`.
        epsilon: of the private release alone.
        bounds: the least and the greatest value of an input, known without looking at the records;
            default those of the data set.
    """

    moments: Literal["private", "exact", "none"] = "none"
    noise_multiplier: float | None = Field(None, gt=0, allow_inf_nan=False)
    epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    bounds: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.moments != "private":
            for key in ("noise_multiplier", "epsilon", "bounds"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key} goes with moments = 'private', but moments is {self.moments!r}"
                    )
        elif (self.noise_multiplier is None) == (self.epsilon is None):
            raise ValueError("private moments need exactly one of noise_multiplier and epsilon")
        return self


class TrainingRecipe(Config):
    """One training.

    Attributes:
        data: as `dpnorm.data.load` takes it.
        model: as `dpnorm.models.build` takes it.
        variant: what its BatchNorm layers become; `frozen` takes public statistics.
        training: settings; `training.seed` also draws the initial weights.
        privacy: None for plain training.
        standardize: what the inputs are standardized by.
    """

    data: str = "digits"
    model: str = "lenet"
    variant: VariantName = "group"
    training: TrainConfig = Field(default_factory=TrainConfig)
    privacy: PrivacyConfig | None = None
    standardize: StandardizeConfig = Field(default_factory=StandardizeConfig)

    @model_validator(mode="after")
    def _private_moments_have_an_account(self) -> Self:
        if self.standardize.moments == "private" and self.privacy is None:
            raise ValueError(
                "standardize.moments is 'private', but there is no [privacy]: the release needs "
                "its account; add [privacy] with epsilon, or take moments = 'exact' or 'none'"
            )
        return self

    def pinned(self, records: int) -> Self:
        """The recipe with every setting filled in that is open, for so many training records."""
        settings = self.training.pinned(records, self.privacy)
        return self.model_copy(update={"training": settings})

    def flat(self) -> dict[str, Any]:
        """Every key, dotted, with its value; those of a plain training's privacy are None.

        The settings are last: what was left open in them follows from all the others.
        """
        sections = self.model_dump()
        sections["privacy"] = sections["privacy"] or dict.fromkeys(PrivacyConfig.model_fields)
        sections["training"] = sections.pop("training")
        found: dict[str, Any] = {}
        for key, value in sections.items():
            if isinstance(value, dict):
                found |= {f"{key}.{name}": item for name, item in value.items()}
            else:
                found[key] = value
        return found


Recipe = TypeVar("Recipe", bound=TrainingRecipe)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """Reads the recipe of a training, as `load_recipe_of` reads any."""
    return load_recipe_of(TrainingRecipe, path, overrides)


def load_recipe_of(kind: type[Recipe], path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; each override is KEY=VALUE with a dotted key and a TOML value.

    A value that is not TOML is taken as a string, so that model=lenet needs no quotes.

    Args:
        kind: of recipe.
        path: of a TOML file.
        overrides: what replaces or adds to it.

    Raises:
        InputError: as `read_toml`, an unknown key, or an override without "=".
    """
    values = read_toml(path)
    for override in overrides:
        values = assigned(values, override)
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_recipe(path: Path) -> TrainingRecipe:
    """Reads the config.json of a run.

    Raises:
        InputError: it cannot be read, or it is none.
    """
    try:
        return TrainingRecipe(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} is not what a run of this dpnorm wrote ({error}): take another folder "
            "with -o"
        ) from None
