"""Judging a classifier before it is trained."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import Report, check
from dpnorm.privacy import require_admitted
from dpnorm.training.augment import ViewsLoss
from dpnorm.training.config import Settings
from dpnorm.training.records import random_batch, random_records


def judge(
    network: nn.Module,
    shape: tuple[int, ...],
    settings: Settings,
    *,
    allow: Literal["unproven", "refuted"] | None = None,
) -> Report:
    """Checks a network as it will be trained, on four random records.

    Raises:
        RefusedError: it is not proven, nor allowed all the same.
    """
    x, y = random_batch(network, shape, settings, 4)
    report = check(network, x, targets=y, criterion=ViewsLoss())
    require_admitted(report, allow)
    return report


def check_classifier(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Report:
    """`check` of a classifier of records of `shape` with cross entropy, on random records."""
    inputs = random_records(model, shape, seed=seed)
    targets = torch.arange(len(inputs), device=inputs.device) % 2
    return check(model, inputs, targets=targets, criterion=F.cross_entropy, seed=seed)
