"""How a model is trained, apart from privacy."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from dpnorm.config import Config


class TrainConfig(Config):
    """The settings of a training.

    Attributes:
        epochs: passes over the training records; under privacy, expected passes.
        batch_size: records a step; under privacy, expected records a step.
        optimizer: "sgd" or "adamw".
        lr: learning rate.
        momentum: of SGD.
        weight_decay: decoupled under AdamW, an L2 penalty under SGD.
        schedule: "constant", or "cosine": the learning rate falls to zero over the training.
        seed: of the order of batches and of dropout. Under privacy the batches and the noise
            come from `PrivacyConfig.seed` instead.
    """

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine"] = "constant"
    seed: int = Field(0, ge=0)

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
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * step / steps)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
