"""BatchNorm of evaluation folded into the layer before it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.conversion.affine import initial_affine
from dpnorm.conversion.recipes.registry import Exchange, Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import ChannelAffine

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@recipe(
    "folded",
    order=55,
    summary="constant statistics, scale and shift folded into the layer before",
    safe=True,
    preserves="exactly",
    data="running statistics of a trained model",
    paper="Jacob et al., arXiv 1712.05877, section 3.2",
    hyperparameters={"eps": "the BatchNorm's own"},
    wants_preceding=True,
)
def folded(source: SourceNorm, init: Init, groups: Groups) -> Exchange:
    """A linear layer with the norm in its weights, or a scale and shift in the norm's place.

    The norm computes scale * x + shift with scale = gamma / sqrt(v + eps) and
    shift = beta - mu * scale. It goes into the layer before where that layer's output is shown to
    go nowhere else; otherwise it stays where it is, as a ChannelAffine.
    """
    start = initial_affine(source, init, lambda: (source.mean, source.var), eps=source.eps)
    weight, bias, how = start.weight, start.bias, start.how
    scale = weight.double() / torch.sqrt(source.var.double() + source.eps)
    shift = bias.double() - source.mean.double() * scale
    if source.preceding is None:
        layer = ChannelAffine(scale.to(weight), shift.to(weight))
        return Exchange(layer, f"a scale and shift per channel, {how}")
    new = _folded_into(source.preceding, scale, shift, trainable=source.bias_trainable)
    return Exchange(nn.Identity(), f"folded into {source.preceding_path}, {how}", new)


def _folded_into(layer: nn.Module, scale: Tensor, shift: Tensor, *, trainable: bool) -> nn.Module:
    """A copy of a linear layer that computes `scale * layer(x) + shift`, in its own dtype."""
    new: Any = copy.deepcopy(layer)
    with torch.no_grad():
        weight = new.weight.double()
        if isinstance(layer, _TRANSPOSED):  # (C_in, C_out / groups, *kernel), C_in group by group
            grouped = weight.unflatten(0, (new.groups, -1))
            factor = scale.view(new.groups, 1, -1, *[1] * (weight.dim() - 2))
            new.weight.copy_((grouped * factor).flatten(0, 1))
        else:
            new.weight.copy_(weight * scale.view(-1, *[1] * (weight.dim() - 1)))
        if new.bias is None:
            new.bias = nn.Parameter(shift.to(new.weight), requires_grad=trainable)
        else:
            new.bias.copy_(new.bias.double() * scale + shift)
    return new
