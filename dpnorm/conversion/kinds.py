"""Which layers are batch normalization, by class or by what they hold, and what they compute."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

_TORCHS_OWN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
_VECTORS = ("weight", "bias", "running_mean", "running_var")


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a layer normalizes by running statistics of batches.

    torch's classes and their subclasses do, and so does any layer with parameters `weight` and
    `bias` (or None for both) beside buffers `running_mean` and `running_var`, all of one length,
    as inplace-ABN has. Layers that hold all four as buffers, as torchvision's and detectron's
    FrozenBatchNorm2d, are constants and safe already.
    """
    return isinstance(module, _BatchNorm) or _looks_like_one(module)


def has_plain_forward(module: nn.Module) -> bool:
    """Whether the layer computes what torch's BatchNorm computes, by its class."""
    return isinstance(module, _BatchNorm) and type(module).forward in _TORCHS_OWN


def num_channels(layer: Any) -> int:
    """C, from `num_features` or from the statistics."""
    known = getattr(layer, "num_features", None)
    return int(known) if known is not None else len(layer.running_mean)


def _looks_like_one(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):  # tracked InstanceNorm, whose output is per record
        return False
    held: Any = {**module._parameters, **module._buffers}
    if not all(name in held for name in _VECTORS):
        return False
    if module._buffers.get("weight") is not None and module._buffers.get("bias") is not None:
        return False
    sizes = {tuple(v.shape) for name in _VECTORS if isinstance(v := held[name], Tensor)}
    statistics = isinstance(held["running_mean"], Tensor) and isinstance(
        held["running_var"], Tensor
    )
    return statistics and len(sizes) == 1 and len(sizes.pop()) == 1
