"""Random numbers that a model draws in training beside noise and sampling, such as dropout."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dpnorm.detection.inputs import Inputs, call
from dpnorm.detection.preserve import preserved

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def draws_at_random(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a model draws random numbers in the modes that it is in.

    A forward pass that leaves the generators of torch (on the CPU and on the model's devices), of
    Python and of NumPy where they were draws none; a module that holds a generator of its own
    counts as one that draws. The model and the generators of torch, Python and NumPy come back as
    they were.

    What it is asked for: masks of dropout are drawn by position in the batch. Who does not know
    them sees a mixture over all masks, and may give each record its own mask in both of two
    neighbouring batches, so that they differ by one clipped gradient. Who knows the seed knows
    the masks, and one record more gives all later records other masks: the sum of clipped gradients
    may move by far more than the clipping norm.

    Args:
        model: as it is trained.
        inputs: a few records.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    return _draws(model, inputs, lambda: [*_states_of_torch(devices), *_other_states()])


def draws_beside_torch(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a model draws by other generators than torch's own, which a training fills itself.

    Args:
        model: as it is trained.
        inputs: a few records.
    """
    return _draws(model, inputs, _other_states)


def _draws(model: nn.Module, inputs: Inputs, states: Callable[[], list[Any]]) -> bool:
    """Whether a forward pass moves one of the states, or a module holds a generator."""
    if any(isinstance(v, _GENERATORS) for m in model.modules() for v in vars(m).values()):
        return True
    with preserved(model), torch.enable_grad():
        before = states()
        call(model, inputs)
        return states() != before


def _states_of_torch(devices: list[int]) -> list[Any]:
    """Where torch's generators are, as something that == compares."""
    found = [torch.get_rng_state(), *[torch.cuda.get_rng_state(device) for device in devices]]
    return [state.numpy().tobytes() for state in found]


def _other_states() -> list[Any]:
    """Where the generators of Python and NumPy are that nobody had to make."""
    with np.printoptions(threshold=sys.maxsize):  # every word of the state
        of_numpy = str(np.random.get_state(legacy=False))
    return [random.getstate(), of_numpy]
