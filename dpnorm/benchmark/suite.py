"""A suite: which arms a benchmark runs, as a TOML file says it."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_serializer, model_validator

from dpnorm.config import Config, read_toml
from dpnorm.data import OUTLIERS
from dpnorm.errors import InputError, unknown_name
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig
from dpnorm.training.networks import VariantName


def _known_outliers(kind: str) -> str:
    if kind not in OUTLIERS:
        raise unknown_name("kind of outliers", kind, OUTLIERS)
    return kind


class OutlierConfig(Config):
    """Outliers that are planted in the training records, to see them memorized."""

    kind: Annotated[str, AfterValidator(_known_outliers)] = "noise"
    count: int = Field(ge=1)
    seed: int = Field(0, ge=0)


class PrivacySettings(Config):
    """What all private arms of a suite share; their epsilon is the arm's."""

    delta: float = Field(1e-5, gt=0, lt=1)
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    accountant: Literal["prv", "rdp", "pld"] = "prv"


class Suite(Config):
    """A benchmark: datasets x models x variants x epsilons, each with a pool of members.

    Attributes:
        name: names the run folder, runs/NAME, unless another is given.
        datasets: as `dpnorm.data.load` takes them.
        models: as `dpnorm.models.build` takes them; their BatchNorm layers are converted.
        variants: names in `dpnorm.variants()`.
        epsilons: `inf` is plain training.
        members: models in a pool, each trained on a random half of the training records.
        seed: of everything; noise and sampling of private arms included, so that a run can be
            repeated. A benchmark's models must therefore not be published as private.
        outliers: planted in the training records; none by default.
        training: the settings of plain training.
        private_training: those of private training, by default the same.
        privacy: delta, clip and accountant of private training.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    datasets: tuple[str, ...] = Field(("digits",), min_length=1)
    models: tuple[str, ...] = Field(("lenet",), min_length=1)
    variants: tuple[VariantName, ...] = Field(min_length=1)
    epsilons: tuple[Annotated[float, Field(gt=0)], ...] = Field((math.inf,), min_length=1)
    members: int = Field(8, ge=2)
    seed: int = Field(0, ge=0)
    outliers: OutlierConfig | None = None
    training: TrainConfig = TrainConfig()
    private_training: TrainConfig | None = None
    privacy: PrivacySettings = PrivacySettings()

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        for field in ("datasets", "models", "variants", "epsilons"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} names something twice: {list(values)}")
        return self

    @field_serializer("epsilons", when_used="json")
    def _epsilons_as_json(self, epsilons: tuple[float, ...]) -> list[float | str]:
        return [epsilon if math.isfinite(epsilon) else "inf" for epsilon in epsilons]

    def training_for(self, epsilon: float, records: int) -> TrainConfig:
        """The training settings of an arm; what they leave open is chosen for so many records."""
        if not math.isfinite(epsilon):
            return self.training.pinned(records, None)
        privacy = PrivacyConfig(epsilon=epsilon, **self.privacy.model_dump())
        return (self.private_training or self.training).pinned(records, privacy)

    def to_dict(self) -> dict[str, Any]:
        """The suite with every default filled in, as JSON data."""
        return self.model_dump(mode="json")


def load_suite(path: str | Path) -> Suite:
    """Reads and validates a suite.

    Raises:
        InputError: no such file, not TOML, an unknown key, or a value that is not allowed; the
            message names the file, what came and what is allowed.
    """
    values = read_toml(path)
    try:
        return Suite(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
