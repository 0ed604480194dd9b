"""Changes of a suite that have a name: for some of its arms, or asked for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from dpnorm.config import Config, assigned, merged
from dpnorm.errors import InputError, unknown_name

if TYPE_CHECKING:
    from dpnorm.benchmark.suite import Suite

_OF_AN_ARM = ("pool", "training", "private_training", "privacy", "processes")


class Where(Config):
    """The arms that an override changes: those that are in every list that is given."""

    datasets: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = None
    epsilons: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(value is None for value in self.lists().values()):
            raise ValueError(f"where is empty: it takes {', '.join(self.lists())}")
        return self

    def lists(self) -> dict[str, tuple[Any, ...] | None]:
        """What is given, by the suite's own key."""
        return {
            "datasets": self.datasets,
            "models": self.models,
            "variants": self.variants,
            "epsilons": self.epsilons,
        }

    def meets(self, dataset: str, model: str, variant: str, epsilon: float) -> bool:
        """Whether the arm is meant."""
        arm = (dataset, model, variant, epsilon)
        return all(
            wanted is None or value in wanted
            for value, wanted in zip(arm, self.lists().values(), strict=True)
        )

    def require_within(self, suite: "Suite") -> None:
        """Refuses what names no arm of the suite.

        Raises:
            InputError: so.
        """
        for key, wanted in self.lists().items():
            known = getattr(suite, key)
            for value in wanted or ():
                if value not in known:
                    raise InputError(
                        f"where.{key} names {value!r}; the suite has {', '.join(map(str, known))}"
                    )


class Override(Config):
    """Keys of a suite with other values, and which arms they are for."""

    where: Where | None = None
    settings: dict[str, Any] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        """In TOML the settings stand beside `where`."""
        if not isinstance(values, Mapping) or "settings" in values:
            return values
        settings = {key: value for key, value in values.items() if key != "where"}
        return {"settings": settings} | ({"where": values["where"]} if "where" in values else {})

    @model_validator(mode="after")
    def _an_arm_changes_its_own(self) -> Self:
        if "overrides" in self.settings or "name" in self.settings:
            raise ValueError("an override changes neither name nor overrides")
        if self.where is not None:
            for key in self.settings:
                if key not in _OF_AN_ARM:
                    raise ValueError(
                        f"{key!r} is not of one arm: with where, an override takes "
                        f"{', '.join(_OF_AN_ARM)}"
                    )
        return self


def asked_for(suite: "Suite", values: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    """The values of a suite's file, changed by one of its overrides or by KEY=VALUE.

    Args:
        suite: whose overrides are known by name.
        values: of its file, changed so far.
        wanted: a name, or KEY=VALUE with a dotted key.

    Raises:
        InputError: there is no override of this name, it has its arms already, or KEY=VALUE has no
            such form.
    """
    if "=" in wanted:
        return assigned(values, wanted)
    if wanted not in suite.overrides:
        raise unknown_name("override", wanted, suite.overrides)
    override = suite.overrides[wanted]
    if override.where is not None:
        raise InputError(f"the override {wanted!r} has its arms (where) and applies by itself")
    return merged(values, override.settings)
