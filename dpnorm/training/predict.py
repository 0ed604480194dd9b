"""Evaluating a model on records."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dpnorm.training.source import AnyRecords, Source

BATCH = 512  # records that are evaluated at once


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """The model is in evaluation mode inside, without gradients; its modes come back after.

    Yields its device.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        for module, training in modes:
            module.training = training


def predict(model: nn.Module, x: Tensor, *, batch_size: int = BATCH) -> Tensor:
    """Logits [N, K] on the CPU, with the model in evaluation mode; its modes come back after."""
    with evaluating(model) as device:
        return torch.cat([model(part.to(device)).cpu() for part in x.split(batch_size)])


def accuracy(model: nn.Module, records: AnyRecords, *, batch_size: int = BATCH) -> float:
    """The share of records whose label has the largest logit; its modes come back after."""
    source = Source(records, what="test")
    right = 0
    with evaluating(model) as device:
        for x, y in source.in_order(batch_size):
            right += int((model(x.to(device)).argmax(1).cpu() == y).sum())
    return right / len(source)
