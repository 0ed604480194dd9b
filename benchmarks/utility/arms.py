"""The arms of the studies: a network with each variant's normalization, or Opacus's."""

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from opacus.validators import ModuleValidator
from torch import nn

import dpnorm
from benchmarks.utility.synthetic import synthetic_digits
from dpnorm.data import Dataset
from dpnorm.files import write_text
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig

DELTA = 1e-5
MODEL = "lenet"
OPACUS = "opacus"  # ModuleValidator.fix with its defaults
SAFE = tuple(name for name, variant in dpnorm.variants().items() if variant.safe)
ARMS = (*SAFE, OPACUS)
FOLDER = Path("runs/utility")


@dataclass(frozen=True)
class Job:
    """One training of a study.

    Attributes:
        data: "synthetic" or a name of `dpnorm.data.load`.
        arm: in ARMS.
        epsilon: the budget.
        seed: of weights, sampling and noise.
        training: settings of `TrainConfig`.
        model: as `dpnorm.models.build` takes it.
        clip: the clipping norm.
        options: of the conversion.
    """

    data: str
    arm: str
    epsilon: float
    seed: int
    training: dict[str, Any]
    model: str = MODEL
    clip: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A digest of all that decides the result."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def dataset(name: str) -> Dataset:
    """The data of a job."""
    return synthetic_digits() if name == "synthetic" else dpnorm.data.load(name)


def fresh(arm: str, data: Dataset, seed: int, model: str = MODEL) -> nn.Module:
    """A network with random weights, the same for every arm of a seed."""
    torch.manual_seed(seed)
    network = dpnorm.models.build(
        model,
        in_channels=data.shape[0],
        num_classes=data.num_classes,
        image_size=(data.shape[1], data.shape[2]),
    )
    return exchanged(network, arm, data, init="copy")


def exchanged(network: nn.Module, arm: str, data: Dataset, *, init: str) -> nn.Module:
    """The network with its BatchNorm layers exchanged as the arm says."""
    if arm == OPACUS:
        return ModuleValidator.fix(network)
    public = data.public.x if arm == "frozen" and init == "copy" else None
    return dpnorm.convert(network, to=arm, init=init, public_inputs=public).model


def run(job: Job) -> dict[str, float]:
    """Trains one network from random weights; accuracy, epsilon and seconds, kept in FOLDER."""
    return kept(job, lambda: _trained(job))


def _trained(job: Job) -> dict[str, float]:
    data = dataset(job.data)
    network = fresh(job.arm, data, job.seed, job.model)
    return measured(network, data, job)


def measured(network: nn.Module, data: Dataset, job: Any) -> dict[str, float]:
    """Trains a network privately as a job says."""
    started = time.perf_counter()
    privacy = PrivacyConfig(epsilon=job.epsilon, delta=DELTA, clip=job.clip, seed=job.seed)
    config = TrainConfig(**{"seed": job.seed, "evaluate_every": 0, **job.training})
    trained = dpnorm.train(network, data, config, privacy)
    assert trained.statement is not None
    assert trained.statement.is_sound
    return {
        "accuracy": trained.accuracy,
        "epsilon": trained.statement.epsilon,
        "seconds": time.perf_counter() - started,
    }


def kept(job: Any, compute: Any) -> dict[str, float]:
    """What was computed for a job before, or else is now."""
    path = FOLDER / f"{job.name}.json"
    if path.is_file():
        return json.loads(path.read_text())["result"]
    result = compute()
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"job": dataclasses.asdict(job), "result": result}) + "\n")
    return result
