"""A pool as a TOML file says it: a training's recipe, and how many models, watched how."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from dpnorm.config import Config
from dpnorm.data import load
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.pool_training import Progress, train_pool
from dpnorm.training.networks import build_network
from dpnorm.training.recipe import TrainingRecipe, load_recipe_of


class PoolConfig(Config):
    """What a pool has beside its training. `train_pool` says more of each.

    Attributes:
        size: number of models.
        outliers: how many are planted.
        outlier_kind: which.
        views: fixed views of each record under which its logits are taken.
        view_kind: "shift" or "shift-flip".
        watch_every: look at losses and predictions every so many epochs; 0 for never.
        watch_norms: of how many models gradient norms are taken then.
    """

    size: int = Field(16, ge=2)
    outliers: int = Field(0, ge=0)
    outlier_kind: str = "noise"
    views: int = Field(1, ge=1)
    view_kind: Literal["shift", "shift-flip"] = "shift"
    watch_every: int = Field(0, ge=0)
    watch_norms: int = Field(0, ge=0)


class PoolRecipe(TrainingRecipe):
    """One pool: the recipe of a training with a section [pool].

    The seed of the pool is `training.seed`.
    """

    pool: PoolConfig = Field(default_factory=PoolConfig)

    @model_validator(mode="after")
    def _inputs_stay_as_they_are(self) -> Self:
        if self.standardize.moments != "none":
            raise ValueError(
                f"standardize.moments is {self.standardize.moments!r}: the models of a pool would "
                "share moments of records that they were not trained on; take 'none'"
            )
        return self


def load_pool_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PoolRecipe:
    """Reads the recipe of a pool, as `load_recipe_of` reads any kind."""
    return load_recipe_of(PoolRecipe, path, overrides)


def train_recipe_pool(
    recipe: PoolRecipe,
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Trains the pool of a recipe in a folder, or goes on with it, or grows it.

    Raises:
        DpnormError: as `train_pool`; an unknown data set, model or variant.
    """
    data = load(recipe.data)
    options = recipe.pool.model_dump()
    return train_pool(
        functools.partial(build_network, recipe.model, recipe.variant, data),
        data,
        recipe.training,
        privacy=recipe.privacy,
        seed=recipe.training.seed,
        workers=workers,
        folder=folder,
        progress=progress,
        **options,
    )
