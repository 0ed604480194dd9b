"""Running a model as often as a probe needs and leaving it exactly as it was."""

import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn

from dpnorm.detection.attributes import SavedAttributes


class SavedState:
    """The buffers, parameters' gradients and random state of a model, to go back to."""

    def __init__(self, model: nn.Module) -> None:
        self._attributes = SavedAttributes(model)
        self._buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._parameters = [(p, p.detach(), p.requires_grad) for p in model.parameters()]
        self._unsaved = {p.untyped_storage()._cdata: p for p in model.parameters()}
        self._written: list[tuple[nn.Parameter, Tensor]] = []
        self._gradients = [
            (p, p.grad, None if p.grad is None else p.grad.detach().clone())
            for p in model.parameters()
        ]

    def save_before_write(self, tensor: Tensor) -> None:
        """Keeps the content of a parameter that is about to be written."""
        storage = tensor.untyped_storage()._cdata
        parameter = self._unsaved.pop(storage, None)
        if parameter is not None:
            self._written.append((parameter, parameter.detach().clone()))

    def restore_buffers(self) -> None:
        """Puts back what a forward pass may change: attributes, buffers, written parameters."""
        self._attributes.restore()
        with torch.no_grad():
            for module, name, buffer, content in self._buffers:
                module._buffers[name] = buffer
                buffer.copy_(content)
            for parameter, data, trainable in self._parameters:
                if parameter.untyped_storage()._cdata != data.untyped_storage()._cdata:
                    parameter.data = data
                parameter.requires_grad_(trainable)
            for parameter, content in self._written:
                parameter.copy_(content)

    def restore(self) -> None:
        """Puts back buffers and gradients."""
        self.restore_buffers()
        with torch.no_grad():
            for parameter, gradient, content in self._gradients:
                parameter.grad = gradient
                if gradient is not None and content is not None:
                    gradient.copy_(content)

    def changed_buffers(self) -> dict[tuple[nn.Module, str], Tensor]:
        """A copy of the present content of each buffer, by module and name."""
        return {
            (module, name): module._buffers[name].detach().clone()  # type: ignore[union-attr]
            for module, name, _, _ in self._buffers
            if module._buffers.get(name) is not None
        }

    def written_parameters(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters that were seen to be written, with a copy of their present content."""
        return [(parameter, parameter.detach().clone()) for parameter, _ in self._written]


_JUDGING: ContextVar[bool] = ContextVar("judging", default=False)


def is_judging() -> bool:
    """Whether a model is being judged: what others hooked to it must not act."""
    return _JUDGING.get()


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[SavedState]:
    """Restores buffers, gradients and the random state at the end, also after an exception."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    state = SavedState(model)
    judging = _JUDGING.set(True)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield state
        finally:
            _JUDGING.reset(judging)
            state.restore()
            random.setstate(python_state)
            np.random.set_state(numpy_state)
