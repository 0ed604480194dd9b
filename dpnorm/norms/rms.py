"""Root-mean-square normalization of one record over all of its channels."""

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn

from dpnorm.norms.channels import per_channel


class RecordRMSNorm(nn.Module):
    """Divides a record by the root mean square of all its values, then scales and shifts.

        y = weight * x / sqrt(mean(x^2) + eps) + bias

    The mean runs over the channels and the positions of a record, as that of GroupNorm with one
    group does, but nothing is subtracted. On records of shape (C,) with a zero shift this is
    `torch.nn.RMSNorm`.

    Formal guarantee: the output for a record, and the gradient of any sum of per-record losses
    with respect to `weight` and `bias`, are functions of that record alone.

    Args:
        channels: C, the size of dimension 1.
        eps: added to the mean square.

    Shapes: (N, C, *) -> (N, C, *); `weight` and `bias` are (C,).

    Source: Zhang and Sennrich, arXiv 1910.07467, with a shift beside the scale.

    >>> RecordRMSNorm(2)(torch.tensor([[3.0, -3.0]])).detach().round(decimals=3).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def normalized(self, x: Tensor) -> Tensor:
        """The records before scale and shift: (N, C, *) -> (N, C, *).

        Half-precision records are squared in float32, where 300^2 does not overflow.
        """
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean_square = wide.square().flatten(1).mean(1)
        scale = torch.rsqrt(mean_square + self.eps).view(-1, *[1] * (x.dim() - 1))
        return (wide * scale).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalized(x) * per_channel(self.weight, x) + per_channel(self.bias, x)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


@register_grad_sampler(RecordRMSNorm)
def _rms_grad_sample(
    layer: RecordRMSNorm, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients of the scale, sum of x_hat * g, and of the shift, sum of g: (N, C)."""
    grads = {}
    if layer.weight.requires_grad:
        normalized = layer.normalized(activations[0])
        grads[layer.weight] = torch.einsum("nc...,nc...->nc", normalized, backprops)
    if layer.bias.requires_grad:
        grads[layer.bias] = torch.einsum("nc...->nc", backprops)
    return grads
