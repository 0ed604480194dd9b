"""The initial scale and shift of a converted layer."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpnorm.conversion.moments import matched_affine
from dpnorm.conversion.source import SourceNorm


def initial_affine(
    source: SourceNorm,
    init: Literal["match", "copy", "reset"],
    moments: Callable[[], tuple[Tensor, Tensor]],
    *,
    eps: float,
) -> tuple[Tensor, Tensor, str]:
    """Scale (C,), shift (C,), and in a word how they were set.

    Args:
        source: the layer to be replaced.
        init: "match" for moment matching, "copy" for the source's own, "reset" for 1 and 0.
        moments: the mean and variance (C,) that the new layer will see; asked for only to match.
        eps: of the new layer.
    """
    if init == "reset":
        return torch.ones_like(source.weight), torch.zeros_like(source.bias), "reset"
    if init == "copy":
        return source.weight, source.bias, "copied"
    if not source.measured:
        return source.weight, source.bias, "copied (no running statistics to match)"
    mean, var = moments()
    weight, bias = matched_affine(
        source.weight,
        source.bias,
        source.mean,
        source.var,
        source.eps,
        new_mean=mean,
        new_var=var,
        new_eps=eps,
    )
    return weight, bias, "matched"


def set_affine(layer: Any, weight: Tensor, bias: Tensor) -> nn.Module:
    """Gives a layer a scale and a shift (C,), and their dtype and device."""
    layer = layer.to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
