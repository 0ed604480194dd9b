"""Capturing what a module took and what gradient came back to what it gave.

Output gradients are read by tensor hooks (`dpnorm.gradients.hearing`). Unlike full backward hooks
they do not turn outputs into views, so that in-place operations in the model do no harm.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.gradients.hearing import hear


@dataclass
class Capture:
    """One call of a module in a forward and backward pass.

    Attributes:
        path: the module's path.
        module: the module.
        activations: the tensors that it was given, detached, in the state they had then.
        gradient: of the loss with respect to its (first) output tensor; None when none came back.
        lost: tells whether the gradient is not to be had, since the output was written in place;
            None where it cannot be.
    """

    path: str
    module: nn.Module
    activations: list[Tensor]
    gradient: Tensor | None = None
    lost: Callable[[], bool] | None = None


@contextmanager
def captured(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[list[Capture]]:
    """Captures every call of the modules in the forward passes that run inside.

    The gradients are there once `backward` has run; it may run inside or after.
    """
    calls: list[Capture] = []
    handles = []

    def watch(path: str, module: nn.Module) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not torch.is_grad_enabled():
                return
            given = [value.detach().clone() for value in args if isinstance(value, Tensor)]
            call = Capture(path, module, given)
            calls.append(call)
            first = output[0] if isinstance(output, (tuple, list)) else output
            if isinstance(first, Tensor) and first.requires_grad:
                call.lost = hear(module, first, lambda gradient: _keep(call, gradient))

        handles.append(module.register_forward_hook(hook))

    for path, module in modules:
        watch(path, module)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _keep(call: Capture, gradient: Tensor) -> None:
    call.gradient = gradient.detach().clone()
