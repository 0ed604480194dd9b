"""What a BatchNorm layer has learned, read off before it is replaced."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SourceNorm:
    """A BatchNorm layer's numbers: all vectors are (C,), detached copies.

    `dims` is the number of dimensions behind the channel (0 for records of shape (C,)), or None
    where the layer does not tell (BatchNorm1d behind anything but a linear layer, SyncBatchNorm).
    """

    path: str
    channels: int
    dims: int | None
    weight: Tensor
    bias: Tensor
    affine: bool
    weight_trainable: bool
    bias_trainable: bool
    mean: Tensor
    var: Tensor
    eps: float
    training: bool
    measured: bool  # whether mean and var are statistics of data, not their initial 0 and 1

    @classmethod
    def read(cls, layer: Any, path: str, *, flat: bool) -> "SourceNorm":
        """Reads a layer; `flat` says that it is known to see records of shape (C,)."""
        channels = layer.num_features
        reference = next((t for t in (layer.weight, layer.running_mean) if t is not None), None)
        like = {} if reference is None else {"dtype": reference.dtype, "device": reference.device}
        ones, zeros = torch.ones(channels, **like), torch.zeros(channels, **like)

        def copied(tensor: Tensor | None, default: Tensor) -> Tensor:
            return default if tensor is None else tensor.detach().clone()

        mean, var = copied(layer.running_mean, zeros), copied(layer.running_var, ones)
        return cls(
            path=path,
            channels=channels,
            dims=_dimensions(layer, flat=flat),
            weight=copied(layer.weight, ones),
            bias=copied(layer.bias, zeros),
            affine=layer.weight is not None,
            weight_trainable=layer.weight is not None and layer.weight.requires_grad,
            bias_trainable=layer.bias is not None and layer.bias.requires_grad,
            mean=mean,
            var=var,
            eps=layer.eps,
            training=layer.training,
            measured=bool((mean != 0).any() or (var != 1).any()),
        )


def _dimensions(layer: nn.Module, *, flat: bool) -> int | None:
    if isinstance(layer, nn.BatchNorm2d):
        return 2
    if isinstance(layer, nn.BatchNorm3d):
        return 3
    return 0 if flat else None
