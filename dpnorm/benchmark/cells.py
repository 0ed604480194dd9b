"""Cells: the smallest pieces of a run, one trained member each, named by what they compute."""

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import torch

from dpnorm.benchmark.code import code_fingerprint
from dpnorm.benchmark.suite import OutlierConfig
from dpnorm.data import Dataset, add_outliers, load
from dpnorm.leakage import Member, draw_membership, train_member
from dpnorm.leakage.members import member_seed
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig
from dpnorm.training.networks import build_network


@dataclass(frozen=True)
class Cell:
    """One member of one arm's pool.

    Everything that decides its result is in here, with the fingerprint of the data: equal cells
    have equal names and are computed once.
    """

    dataset: str
    data_fingerprint: str
    outliers: OutlierConfig | None
    model: str
    variant: str
    epsilon: float
    training: TrainConfig
    privacy: PrivacyConfig | None
    members: int
    member: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The cell as JSON data, dpnorm's own code included."""
        return {
            "code": code_fingerprint(),
            "torch": torch.__version__,
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            "outliers": None if self.outliers is None else self.outliers.model_dump(),
            "model": self.model,
            "variant": self.variant,
            "epsilon": self.epsilon if math.isfinite(self.epsilon) else "inf",
            "training": self.training.model_dump(),
            "privacy": None if self.privacy is None else self.privacy.model_dump(),
            "members": self.members,
            "member": self.member,
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of the cell's content."""
        text = json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def compute(self) -> Member:
        """Trains the member; the result depends on the cell alone."""
        data = load_data(self.dataset, self.outliers)
        keep = draw_membership(len(data.train), self.members, self.seed)[self.member]
        factory = functools.partial(build_network, self.model, self.variant, data)
        seed = member_seed(self.seed, self.member)
        return train_member(factory, data, self.training, self.privacy, keep=keep, seed=seed)


@functools.lru_cache(maxsize=4)
def load_data(name: str, outliers: OutlierConfig | None) -> Dataset:
    """The data set of a cell, with its outliers."""
    data = load(name)
    if outliers is None:
        return data
    return add_outliers(data, outliers.kind, outliers.count, seed=outliers.seed)


def describe(cell: Cell) -> str:
    """A cell in a few words, for progress displays."""
    budget = f"epsilon {cell.epsilon:g}" if math.isfinite(cell.epsilon) else "plain"
    return f"{cell.dataset} {cell.model} {cell.variant} {budget} #{cell.member}"
