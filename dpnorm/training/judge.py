"""Judging a classifier before it is trained."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import UNDECIDED, Report, Verdict, check
from dpnorm.errors import RefusedError


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
    allowed = {None: [Verdict.PROVEN], "unproven": [Verdict.PROVEN, Verdict.UNPROVEN]}
    if report.verdict in allowed.get(allow, list(Verdict)):
        return report
    doubts = [f for f in report.findings if f.witness is not None or f.code in UNDECIDED]
    worst = max(doubts, key=lambda f: f.witness or 0.0)
    hint = (
        "" if report.verdict == Verdict.REFUTED else " To train it all the same: allow='unproven'."
    )
    raise RefusedError(
        f"refused: {report.model} is {report.summary()}; {worst.path or 'the model'} "
        f"({worst.code}) {worst.message}. {worst.remedy}{hint}"
    )


def check_classifier(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0) -> Report:
    """`check` of a classifier of records of `shape` with cross entropy, on random records."""
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = torch.rand((4, *shape), generator=generator).to(device)
    targets = torch.arange(4, device=device) % 2
    return check(model, inputs, targets=targets, criterion=F.cross_entropy, seed=seed)
