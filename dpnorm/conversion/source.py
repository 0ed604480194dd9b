"""What a BatchNorm layer has learned, read off before it is replaced."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.conversion.kinds import num_channels


@dataclass(frozen=True)
class SourceNorm:
    """A BatchNorm layer's numbers: all vectors are (C,), detached copies.

    `dims` is the number of dimensions behind the channel (0 for records of shape (C,)), or None
    where nothing tells (a BatchNorm1d of which neither the layer before nor an input is known).
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
    preceding: nn.Module | None = None  # the linear layer before it, where that is shown
    preceding_path: str | None = None
    shrinkage: float = 0.0  # see `dpnorm.conversion.affine`
    new_eps: float | None = None  # of the layer in its place, where it was asked for

    @classmethod
    def read(
        cls,
        layer: Any,
        path: str,
        *,
        dims: int | None = None,
        absolute: bool = False,
        preceding: tuple[str, nn.Module] | None = None,
        shrinkage: float = 0.0,
        new_eps: float | None = None,
    ) -> "SourceNorm":
        """Reads a layer.

        Args:
            layer: of the BatchNorm family.
            path: where it stands.
            dims: the number of dimensions behind the channel, where the class does not tell.
            absolute: whether the layer's scale is |weight| + eps.
            preceding: path and layer of the linear layer before it.
            shrinkage: of the new layer's variance, see `dpnorm.conversion.affine`.
            new_eps: of the layer in its place, where it was asked for.
        """
        channels, eps = num_channels(layer), getattr(layer, "eps", 1e-5)
        reference = next((t for t in (layer.weight, layer.running_mean) if t is not None), None)
        like = {} if reference is None else {"dtype": reference.dtype, "device": reference.device}
        ones, zeros = torch.ones(channels, **like), torch.zeros(channels, **like)

        def copied(tensor: Tensor | None, default: Tensor) -> Tensor:
            return default if tensor is None else tensor.detach().clone()

        weight = copied(layer.weight, ones)
        mean, var = copied(layer.running_mean, zeros), copied(layer.running_var, ones)
        return cls(
            path=path,
            channels=channels,
            dims=known_dimensions(layer) if dims is None else dims,
            weight=weight.abs() + eps if absolute else weight,
            bias=copied(layer.bias, zeros),
            affine=layer.weight is not None,
            weight_trainable=layer.weight is not None and layer.weight.requires_grad,
            bias_trainable=layer.bias is not None and layer.bias.requires_grad,
            mean=mean,
            var=var,
            eps=eps,
            training=layer.training,
            measured=bool((mean != 0).any() or (var != 1).any()),
            preceding=preceding[1] if preceding else None,
            preceding_path=preceding[0] if preceding else None,
            shrinkage=shrinkage,
            new_eps=new_eps,
        )


def known_dimensions(layer: nn.Module) -> int | None:
    """The number of dimensions behind the channel that the class of a layer fixes."""
    if isinstance(layer, nn.BatchNorm2d):
        return 2
    return 3 if isinstance(layer, nn.BatchNorm3d) else None
