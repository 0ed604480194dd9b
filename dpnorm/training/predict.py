"""Evaluating a model on records."""

import torch
from torch import Tensor, nn

from dpnorm.data import Records


def predict(model: nn.Module, x: Tensor, *, batch_size: int = 512) -> Tensor:
    """Logits [N, K] on the CPU, with the model in evaluation mode; its modes come back after."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(part.to(device)).cpu() for part in x.split(batch_size)])
    finally:
        for module, training in modes:
            module.training = training


def accuracy(model: nn.Module, records: Records) -> float:
    """The share of records whose label has the largest logit."""
    return (predict(model, records.x).argmax(1) == records.y).double().mean().item()
