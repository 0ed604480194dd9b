"""A model that comes back as it was where making it private fails."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

_HOOKS = "autograd_grad_sample_hooks"  # Opacus's name for the list of its hooks on a model


@contextlib.contextmanager
def unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """Takes the gradient hooks off again, and restores buffers and parameters' attributes.

    Args:
        model: without hooks of its own.
    """
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    attributes = [(p, dict(p.__dict__)) for p in model.parameters()]
    try:
        yield
    except BaseException:
        for handle in model.__dict__.pop(_HOOKS, []):
            handle.remove()
        with torch.no_grad():
            for buffer, content in buffers:
                buffer.copy_(content)
        for parameter, own in attributes:
            parameter.__dict__.clear()
            parameter.__dict__.update(own)
        raise


def has_hooks(model: nn.Module) -> bool:
    """Whether the model, or a part of it, has gradient hooks of Opacus's kind."""
    return any(hasattr(module, _HOOKS) for module in model.modules())
