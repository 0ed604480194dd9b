"""A suite: which arms a benchmark runs, as a TOML file says it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_serializer, model_validator

from dpnorm.benchmark.overrides import Override, asked_for
from dpnorm.config import Config, merged, read_toml
from dpnorm.data import OUTLIERS
from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage import attacks
from dpnorm.leakage.pool_recipe import PoolConfig
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig
from dpnorm.training.networks import VariantName


def _known_outliers(kind: str) -> str:
    if kind not in OUTLIERS:
        raise unknown_name("kind of outliers", kind, OUTLIERS)
    return kind


def _known_attack(name: str) -> str:
    if name not in attacks():
        raise unknown_name("attack", name, attacks())
    return name


def _file_name(name: str) -> str:
    if name in ("cells", "failures") or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} names a folder of the runs: choose a plain word")
    return name


class OutlierConfig(Config):
    """Outliers that are planted in the training records, to see them memorized."""

    kind: Annotated[str, AfterValidator(_known_outliers)] = "noise"
    count: int = Field(ge=1)
    seed: int = Field(0, ge=0)


class PoolSection(PoolConfig):
    """The models of an arm, each trained on a random half of the training records."""

    size: int = Field(8, ge=2)
    outlier_kind: Annotated[str, AfterValidator(_known_outliers)] = "noise"


class LeakageSection(Config):
    """What is done to the pool of an arm.

    Attributes:
        attacks: names in `dpnorm.leakage.attacks()`.
    """

    attacks: tuple[Annotated[str, AfterValidator(_known_attack)], ...] = Field(
        ("loss", "lira"), min_length=1
    )


class AuditsSection(Config):
    """One training with canaries for each private arm (`dpnorm.leakage.audit_training`).

    Attributes:
        canaries: of gradients.
        records: training records as canaries; default half of them, 1000 at most.
        method: "one-run", or "gaussian", which assumes a trade-off family.
        confidence: of each bound.
        spread: parameter tensors that a gradient canary has a part in.
    """

    canaries: int = Field(1000, ge=2)
    records: int | None = Field(None, ge=2)
    method: Literal["one-run", "gaussian"] = "one-run"
    confidence: float = Field(0.95, gt=0, lt=1)
    spread: int = Field(1, ge=1)


class PrivacySection(Config):
    """What all private arms of a suite share; their epsilon is the arm's."""

    delta: float = Field(1e-5, gt=0, lt=1)
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    accountant: Literal["prv", "rdp", "pld"] = "prv"
    statistics_noise_ratio: float = Field(4.0, gt=0, allow_inf_nan=False)


class Suite(Config):
    """A benchmark: datasets x models x variants x epsilons x seeds, each with a pool of models.

    Attributes:
        name: names the run folder, RUNS/NAME.
        description: what it is for, in a sentence; it stands in the report.
        datasets: as `dpnorm.data.load` takes them.
        models: as `dpnorm.models.build` takes them; their BatchNorm layers are converted.
        variants: names in `dpnorm.variants()`.
        epsilons: `inf` is plain training.
        seeds: of everything in an arm; noise and sampling of private arms included, so that a run
            can be repeated. A benchmark's models must therefore not be published as private.
        allow: "unproven" or "refuted" trains private arms that `check` does not prove, or refutes,
            as people do by mistake. Their epsilon is void, and every output says so.
        processes: that share one training (torchrun, with Opacus's DPDDP); for large ones.
        pool: how many models an arm has, with which outliers, watched how.
        training: of plain arms, and of private ones without `private_training`.
        private_training: of private arms.
        privacy: of private arms.
        leakage: attacks on the pool.
        audits: one audited training for each private arm; None for none.
        overrides: by name. One with `where` changes the arms that it names; one without is asked
            for by name (`--override NAME`).
    """

    name: Annotated[str, AfterValidator(_file_name)] = Field(min_length=1)
    description: str = ""
    datasets: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = Field(min_length=1)
    variants: tuple[VariantName, ...] = Field(min_length=1)
    epsilons: tuple[Annotated[float, Field(gt=0)], ...] = Field((math.inf,), min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    allow: Literal["unproven", "refuted"] | None = None
    processes: int = Field(1, ge=1, le=64)
    pool: PoolSection = PoolSection()
    training: TrainConfig = TrainConfig()
    private_training: TrainConfig | None = None
    privacy: PrivacySection = PrivacySection()
    leakage: LeakageSection = LeakageSection()
    audits: AuditsSection | None = None
    overrides: dict[str, Override] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        for field in ("datasets", "models", "variants", "epsilons", "seeds"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} names something twice: {list(values)}")
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        for name, override in self.overrides.items():
            try:
                self.changed(override.settings)
            except ValueError as error:
                raise ValueError(f"overrides.{name}: {error}") from None
        return self

    @field_serializer("epsilons", when_used="json")
    def _epsilons_as_json(self, epsilons: tuple[float, ...]) -> list[float | str]:
        return [epsilon if math.isfinite(epsilon) else "inf" for epsilon in epsilons]

    def require_overrides_have_arms(self) -> None:
        """Refuses an override whose `where` names what the suite does not have: a slip of the pen.

        A file is held to it; a suite that was narrowed on purpose need not be.

        Raises:
            InputError: so.
        """
        for name, override in self.overrides.items():
            if override.where is not None:
                try:
                    override.where.require_within(self)
                except InputError as error:
                    raise InputError(f"overrides.{name}.{error}") from None

    def changed(self, settings: Mapping[str, Any]) -> "Suite":
        """The suite with sections or keys replaced; a section keeps its keys that are not named.

        Raises:
            InputError: a key or a value that is not allowed.
        """
        if not settings:
            return self
        values = self.model_dump(exclude_unset=True, exclude={"overrides"})
        return Suite(**merged(values, settings))

    def for_arm(self, dataset: str, model: str, variant: str, epsilon: float) -> "Suite":
        """The suite as it is for one arm: what overrides say of it is in its settings."""
        suite = self
        for override in self.overrides.values():
            if override.where is not None and override.where.meets(
                dataset, model, variant, epsilon
            ):
                suite = suite.changed(override.settings)
        return suite

    def training_for(self, epsilon: float, records: int) -> TrainConfig:
        """The training settings of an arm; what they leave open is chosen for so many records."""
        if not math.isfinite(epsilon):
            return self.training.pinned(records, None)
        privacy = PrivacyConfig(epsilon=epsilon, **self.privacy.model_dump())
        return (self.private_training or self.training).pinned(records, privacy)

    def to_dict(self) -> dict[str, Any]:
        """The suite with every default filled in, as JSON data."""
        return self.model_dump(mode="json")


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Reads and validates a suite: a file, or the name of a shipped one.

    Args:
        path: of a TOML file, or a name such as "quick" (`shipped_suites`).
        overrides: names of its overrides that are asked for, or KEY=VALUE with a dotted key.

    Raises:
        InputError: no such file, not TOML, an unknown key, or a value that is not allowed; the
            message names the file, what came and what is allowed.
    """
    file = find_suite(path)
    values = read_toml(file)
    try:
        suite = Suite(**values)
        suite.require_overrides_have_arms()
        for wanted in overrides:
            values = asked_for(suite, values, wanted)
        return Suite(**values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def shipped_suites() -> dict[str, Path]:
    """The suites that come with dpnorm, by name."""
    here = Path(__file__).parent / "suites"
    return {file.stem: file for file in sorted(here.glob("*.toml"))}


def find_suite(path: str | Path) -> Path:
    """The file of a suite.

    Raises:
        InputError: there is none, with the nearest shipped name.
    """
    file = Path(path)
    if file.is_file():
        return file
    shipped = shipped_suites()
    if str(path) in shipped:
        return shipped[str(path)]
    if file.suffix == ".toml" or len(file.parts) > 1:
        raise InputError(
            f"there is no file {str(path)!r}; suites that come with dpnorm: {', '.join(shipped)}"
        )
    raise unknown_name("suite", str(path), shipped)
