"""Judging a classifier before it is trained."""

import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import Report, Verdict, check
from dpnorm.errors import RefusedError


def judge(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Report:
    """Checks a classifier in training mode, with cross entropy, on four random records.

    Raises:
        RefusedError: the model is refuted.
    """
    report = check_classifier(model, shape, seed=seed)
    if report.verdict == Verdict.REFUTED:
        worst = max(report.findings, key=lambda f: f.witness or 0.0)
        raise RefusedError(
            f"refused: {report.model} is {report.summary()}; {worst.path or 'the model'} "
            f"({worst.code}) {worst.message}. {worst.remedy}"
        )
    return report


def check_classifier(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Report:
    """`check` of a classifier of records of `shape` with cross entropy, on random records."""
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = torch.rand((4, *shape), generator=generator).to(device)
    targets = torch.arange(4, device=device) % 2
    return check(model, inputs, targets=targets, criterion=F.cross_entropy, seed=seed)
