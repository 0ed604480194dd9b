"""The memory layout in which a network of 2-d convolutions computes fastest on a CPU."""

import copy

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3  # of the largest output: sums in another order differ by 1e-6


def channels_last_where_it_runs(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with its 4-d weights in channels-last layout, if it computes the same in it.

    On one CPU thread a step of plain training takes 0.6 to 0.97 of the time (docs/leakage.md); the
    numbers differ in their last digits only, as sums are taken in another order. A forward pass
    that asks for a contiguous layout (`x.view(len(x), -1)` after a convolution) does not run in it:
    such a model stays as it is, and so does one on another device than the CPU or without 2-d
    convolutions. Which it is depends on the model alone, never on measured time.

    Args:
        model: changed in place: the layout of its weights, not their values.
        x: (N, *shape), records that it takes; two of them are tried.
    """
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    if not on_cpu or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return model
    trial = copy.deepcopy(model)
    with torch.random.fork_rng(devices=()):
        try:
            expected = trial.eval()(x[:2])
            trial.to(memory_format=torch.channels_last)
            found = trial(x[:2])
            trial.train()(x[:2]).square().sum().backward()
        except Exception:  # a model's own; what is wrong in any layout shows in the training
            return model
    largest = expected.abs().max().clamp(min=1.0)
    if found.shape != expected.shape or (found - expected).abs().max() > _TOLERANCE * largest:
        return model  # it draws, or reads memory by place
    return model.to(memory_format=torch.channels_last)
