"""How a model is trained, apart from privacy."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from dpnorm.config import Config
from dpnorm.privacy import PrivacyConfig
from dpnorm.training.defaults import recommended


class _Common(Config):
    """What is the same for every size of data.

    Attributes:
        optimizer: "sgd" or "adamw".
        weight_decay: decoupled under AdamW, an L2 penalty under SGD.
        schedule: of the learning rate: "constant", "cosine" or "linear", which fall to zero over
            the training.
        warmup: the share of the steps in which the learning rate rises from zero.
        augment: "none", "shift" (by up to an eighth of the side), or "shift-flip" (mirrored too).
        views: how many augmented views of a record are in a batch; its gradient is their mean,
            which is clipped as one (De et al., arXiv 2204.13650). One record stays one.
        zero_last_layer: begin with zeros in the last linear layer; not for a trained one.
        grad_sample_mode: how private training finds gradients of records: "lean", "hooks",
            "functorch", "ghost", "ew", or "auto", which times them on random records and takes the
            fastest that fits. The modes round differently: "auto" may change the last digits.
        physical_batch_size: records that are run at once, which changes memory and speed, and with
            augmentation or dropout the random numbers that a record gets; a BatchNorm sees no
            larger batch. Default as many as fit into a quarter of the memory.
        evaluate_every: test accuracy, and epsilon, go into the history every so many epochs, and
            after the last; 0 for never.
        workers: processes that load the records of a map-style data set.
        seed: of the order of batches, of dropout and of augmentation. A private training draws all
            of them, and its noise, by `PrivacyConfig.seed` instead: whoever knows how dropout and
            augmentation were drawn knows them by place in the batch, and one record more moves the
            others to other places.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)
    augment: Literal["none", "shift", "shift-flip"] = "none"
    views: int = Field(1, ge=1)
    zero_last_layer: bool = False
    grad_sample_mode: Literal["auto", "lean", "hooks", "functorch", "ghost", "ew"] = "lean"
    physical_batch_size: int | None = Field(None, ge=1)
    evaluate_every: int = Field(1, ge=0)
    workers: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)


class TrainConfig(_Common):
    """The settings of a training; what is left open is chosen for the size of the data.

    `docs/training.md` says how the choices were found.

    Attributes:
        epochs: passes over the training records; under privacy, expected passes.
        batch_size: records a step; under privacy, expected records a step.
        lr: learning rate.
        momentum: of SGD.
        ema: the model that is returned, and evaluated, is the moving average of the parameters and
            statistics with this decay; 0 for the last ones.
    """

    __doc__ = f"{__doc__}\n{_Common.__doc__}"

    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0, allow_inf_nan=False)
    momentum: float | None = Field(None, ge=0, lt=1)
    ema: float | None = Field(None, ge=0, lt=1)

    def settings(self, records: int, privacy: PrivacyConfig | None) -> "Settings":
        """The settings with what was left open chosen for so many records and this privacy."""
        given = {key: value for key, value in self.model_dump().items() if value is not None}
        return Settings(**(recommended(records, privacy, self.optimizer) | given))

    def pinned(self, records: int, privacy: PrivacyConfig | None) -> "TrainConfig":
        """A configuration that leaves nothing open, as it is for so many records."""
        return TrainConfig(**self.settings(records, privacy).model_dump())


class Settings(_Common):
    """What a training runs with: a `TrainConfig` that leaves nothing open."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False)
    momentum: float = Field(ge=0, lt=1)
    ema: float = Field(ge=0, lt=1)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the model's trainable parameters."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        rising = math.floor(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        done = (step - rising) / max(steps - rising, 1)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        return self.lr * (1 - done) if self.schedule == "linear" else self.lr


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
