"""The initial scale, shift and eps of a converted layer.

A norm that divides each record by its own deviation changes the function of a network most for
records whose deviation is far from the population's: a picture with little ink. A matched layer
therefore gets an eps of a few times the variance s that it is expected to see,

    y = gamma' (x - m(x)) / sqrt(s(x) + eps) + beta',   eps = 1e-5 + k s,

which draws every record's variance towards the population's. gamma' is matched with that eps, so
that a record of variance s is treated as before. A smaller eps normalizes each record more strongly
and keeps less of what the network has learned; a larger one relies on running statistics, which lag
behind where the learning rate was never lowered (docs/conversion.md has the numbers). k is 2, and 8
in networks with depthwise convolutions, which do not average a record's scale over channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpnorm.conversion.moments import matched_affine
from dpnorm.conversion.source import SourceNorm

EPS = 1e-5
SHRINKAGE = 2.0  # eps of a matched layer, in units of the variance that it is expected to see
DEPTHWISE_SHRINKAGE = 8.0
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def shrinkage_for(model: nn.Module) -> float:
    """The factor k above for the norms of a network."""
    depthwise = any(
        isinstance(module, _CONVOLUTIONS) and module.groups == module.in_channels > 1
        for module in model.modules()
    )
    return DEPTHWISE_SHRINKAGE if depthwise else SHRINKAGE


@dataclass(frozen=True)
class Initial:
    """How a converted layer starts: scale and shift (C,), eps, and in a word how they were set."""

    weight: Tensor
    bias: Tensor
    eps: float
    how: str


def initial_affine(
    source: SourceNorm,
    init: Literal["match", "copy", "reset"],
    moments: Callable[[], tuple[Tensor, Tensor]],
    *,
    eps: float | None = None,
) -> Initial:
    """Scale, shift and eps for the layer in a BatchNorm's place.

    Args:
        source: the layer to be replaced.
        init: "match" for moment matching, "copy" for the source's own, "reset" for 1 and 0.
        moments: the mean and variance (C,) that the new layer will see; asked for only to match.
        eps: where it is fixed; default what was asked for, or by the rule above.
    """
    asked = source.new_eps if eps is None else eps
    plain = EPS if asked is None else asked
    if init == "reset":
        ones, zeros = torch.ones_like(source.weight), torch.zeros_like(source.bias)
        return Initial(ones, zeros, plain, "reset")
    if init == "copy":
        return Initial(source.weight, source.bias, plain, "copied")
    if not source.measured:
        how = "copied (no running statistics to match)"
        return Initial(source.weight, source.bias, plain, how)
    mean, var = moments()
    new_eps = EPS + source.shrinkage * float(var.double().mean()) if asked is None else asked
    weight, bias = matched_affine(
        source.weight,
        source.bias,
        source.mean,
        source.var,
        source.eps,
        new_mean=mean,
        new_var=var,
        new_eps=new_eps,
    )
    return Initial(weight, bias, new_eps, "matched")


def set_affine(layer: Any, initial: Initial) -> nn.Module:
    """Gives a layer a scale, a shift and an eps, and the dtype and device of the scale."""
    layer = layer.to(initial.weight)
    layer.eps = initial.eps
    with torch.no_grad():
        layer.weight.copy_(initial.weight)
        layer.bias.copy_(initial.bias)
    return layer
