"""EvoNorm-S0: normalization and activation of one record in a single layer."""

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.norms.channels import per_channel

_HALF = (torch.float16, torch.bfloat16)


class EvoNormS0(nn.Module):
    """Gates each value by a sigmoid and divides it by its group's standard deviation.

        y = weight * x * sigmoid(v * x) / sqrt(var_group(x) + eps) + bias

    The variance runs over the channels of a group and the positions of one record, with no
    correction (divided by the number of values). Nothing is subtracted, and with v = 1 the gate is
    SiLU: the layer stands in the place of a norm and the activation behind it. A group should hold
    more than one value; the variance of a single one is 0.

    Formal guarantee: the output for a record, and the gradient of any sum of per-record losses
    with respect to `weight`, `bias` and `v`, are functions of that record alone.

    Args:
        channels: C, the size of dimension 1.
        groups: a divisor of C. 1 divides every C; the paper takes 32.
        eps: added to the variance.

    Shapes: (N, C, *) -> (N, C, *); `weight`, `bias` and `v` are (C,).

    Raises:
        InputError: the groups do not divide the channels.

    Source: Liu et al., arXiv 2004.02967.

    >>> EvoNormS0(2)(torch.tensor([[3.0, -3.0]])).detach()
    tensor([[ 0.9526, -0.0474]])
    """

    def __init__(self, channels: int, *, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            divisors = [d for d in range(1, channels + 1) if channels % d == 0]
            raise InputError(
                f"{groups} groups do not divide {channels} channels: take one of {divisors}"
            )
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels))

    def group_std(self, x: Tensor) -> Tensor:
        """The standard deviation that each channel is divided by: (N, C, *) -> (N, C, 1, ...)."""
        grouped = x.unflatten(1, (self.groups, -1)).flatten(2)
        var = (grouped - grouped.mean(2, keepdim=True)).square().mean(2)  # no warning at N = 0
        std = torch.sqrt(var + self.eps).repeat_interleave(x.shape[1] // self.groups, 1)
        return std.view(*std.shape, *[1] * (x.dim() - 2))

    def normalized(self, x: Tensor) -> Tensor:
        """The gated records before scale and shift: (N, C, *) -> (N, C, *).

        Half-precision records are squared in float32, where 300^2 does not overflow.
        """
        wide, gate = self._gate(x)
        return (wide * gate / self.group_std(wide)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalized(x) * per_channel(self.weight, x) + per_channel(self.bias, x)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, groups={self.groups}, eps={self.eps}"

    def _gate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide, v = (x.float(), self.v.float()) if x.dtype in _HALF else (x, self.v)
        return wide, torch.sigmoid(wide * per_channel(v, wide))


@register_grad_sampler(EvoNormS0)
def _evonorm_grad_sample(
    layer: EvoNormS0, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients, each (N, C).

    Of the scale: sum of x_hat * g. Of the shift: sum of g. Of v, where s is the sigmoid:
    weight * sum of x^2 s (1 - s) g / std.
    """
    x, grads = activations[0], {}
    if layer.weight.requires_grad:
        grads[layer.weight] = torch.einsum("nc...,nc...->nc", layer.normalized(x), backprops)
    if layer.bias.requires_grad:
        grads[layer.bias] = torch.einsum("nc...->nc", backprops)
    if layer.v.requires_grad:
        wide, gate = layer._gate(x)
        slope = wide.square() * gate * (1 - gate) / layer.group_std(wide)
        total = torch.einsum("nc...,nc...->nc", slope, backprops.to(slope.dtype))
        grads[layer.v] = (total * layer.weight).to(layer.v.dtype)
    return grads
