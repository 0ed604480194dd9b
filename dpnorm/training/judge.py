"""Judging a classifier before it is trained."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.detection import Report, check
from dpnorm.privacy import require_admitted


def judge(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    allow: Literal["unproven", "refuted"] | None = None,
    seed: int = 0,
) -> Report:
    """Checks a classifier in training mode, with cross entropy, on four random records.

    Raises:
        RefusedError: the model is not proven, nor allowed all the same.
    """
    report = check_classifier(model, shape, seed=seed)
    require_admitted(report, allow)
    return report


def check_classifier(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Report:
    """`check` of a classifier of records of `shape` with cross entropy, on random records."""
    inputs = random_records(model, shape, seed=seed)
    targets = torch.arange(len(inputs), device=inputs.device) % 2
    return check(model, inputs, targets=targets, criterion=F.cross_entropy, seed=seed)


def random_records(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
    """Four random records (4, *shape) on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.rand((4, *shape), generator=generator).to(device)
