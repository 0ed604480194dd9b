"""Recognizing the BatchNorm family, the layers that read statistics from a batch."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `module` is one of torch's BatchNorm layers, SyncBatchNorm or a subclass of them."""
    return isinstance(module, _BatchNorm)


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether a BatchNorm-family layer, in its present mode, normalizes with the batch it sees."""
    return is_batch_norm(module) and (module.training or module.running_mean is None)


def is_uninitialized(module: Any) -> bool:
    """Whether `module` is a lazy layer that has seen no input, so that its sizes are open."""
    lazy = isinstance(module, nn.modules.lazy.LazyModuleMixin)
    return lazy and bool(module.has_uninitialized_params())
