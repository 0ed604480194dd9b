"""The registry of variants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from torch import nn

from dpnorm.conversion.source import SourceNorm

Groups = int | Callable[[int], int] | Mapping[str, int] | None
Init = Literal["match", "copy", "reset"]
Preserves = Literal["exactly", "approximately", "no"]


@dataclass(frozen=True)
class Exchange:
    """What a recipe built: the new layer, in words how it was set, and a new preceding layer."""

    layer: nn.Module
    detail: str
    preceding: nn.Module | None = None


@dataclass(frozen=True)
class Preparation:
    """What was changed in a copy of a model before its norms are exchanged.

    Attributes:
        notes: what to say of a norm beside what its recipe says, by path.
        added: paths of norms that were added, to be exchanged as the others.
        rewritten: paths of blocks that worked in place and do not any more.
    """

    notes: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()


Recipe = Callable[[SourceNorm, Init, Groups], tuple[nn.Module, str] | Exchange]
Chosen = Callable[[str, nn.Module], bool]
Prepare = Callable[[nn.Module, Mapping[str, nn.Module], Chosen], Preparation]
Build = TypeVar("Build", bound=Recipe)


@dataclass(frozen=True)
class Variant:
    """One entry of the registry.

    Attributes:
        name: the name that `convert(to=...)` and suites use.
        order: where tables show it.
        summary: what the layer computes.
        safe: whether DP-SGD's guarantee holds with it.
        preserves: how well a matched conversion keeps a trained model's function.
        data: the data that it needs.
        paper: where it comes from.
        recipe: builds the layer for a source, and says in words how it was set; None leaves the
            BatchNorm as it is.
        hyperparameters: what can be set, by name, with its default in words.
        wants_preceding: whether the recipe also exchanges the layer before the norm, where
            `SourceNorm.preceding` has it.
        prepare: changes the network around the norms first; it is given the copy, the norms to be
            exchanged by path, and whether a norm at a path is chosen.
    """

    name: str
    order: int
    summary: str
    safe: bool
    preserves: Preserves
    data: str
    paper: str
    recipe: Recipe | None = field(default=None, repr=False)
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    wants_preceding: bool = False
    prepare: Prepare | None = field(default=None, repr=False)


_VARIANTS: dict[str, Variant] = {}


def variants() -> dict[str, Variant]:
    """Every variant by name, in the order in which tables show them.

    >>> next(iter(variants()))
    'batch'
    """
    return dict(sorted(_VARIANTS.items(), key=lambda item: item[1].order))


def register(variant: Variant) -> None:
    """Enters a variant into the registry."""
    _VARIANTS[variant.name] = variant


def recipe(
    name: str,
    *,
    order: int,
    summary: str,
    safe: bool,
    preserves: Preserves,
    data: str,
    paper: str,
    hyperparameters: Mapping[str, str] | None = None,
    wants_preceding: bool = False,
    prepare: Prepare | None = None,
) -> Callable[[Build], Build]:
    """Registers the decorated function as the recipe of a variant."""

    def decorate(build: Build) -> Build:
        register(
            Variant(
                name,
                order,
                summary,
                safe,
                preserves,
                data,
                paper,
                build,
                hyperparameters or {},
                wants_preceding,
                prepare,
            )
        )
        return build

    return decorate
