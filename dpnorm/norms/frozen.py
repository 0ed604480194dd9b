"""Batch normalization with fixed statistics: a per-channel affine map, one for all records."""

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """Views a (C,) vector so that it broadcasts along dimension 1 of `like`."""
    return vector.view(1, -1, *[1] * (like.dim() - 2))


class FrozenStatistics(nn.Module):
    """Normalizes each channel by constants: `(x - running_mean) / sqrt(running_var + eps)`.

    It holds no parameter, and neither `train()` nor a forward pass changes its buffers. The
    buffers stand in a module of their own because Opacus refuses buffers beside trainable
    parameters.

    Shapes: (N, C, ...) -> (N, C, ...); buffers `running_mean` and `running_var` are (C,).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, mean: Tensor, var: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("running_mean", mean.detach().clone())
        self.register_buffer("running_var", var.detach().clone())
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(self.running_var + self.eps)
        return (x - per_channel(self.running_mean, x)) * per_channel(scale, x)

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, eps={self.eps}"


class ChannelAffine(nn.Module):
    """Scales and shifts each channel: `weight * x + bias`, trainable.

    Shapes: (N, C, ...) -> (N, C, ...); `weight` and `bias` are (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * per_channel(self.weight, x) + per_channel(self.bias, x)

    def extra_repr(self) -> str:
        return str(len(self.weight))


class FrozenBatchNorm(nn.Module):
    """BatchNorm with constant statistics and a trainable scale and shift.

        y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

    This is BatchNorm in evaluation mode, in training mode too: with the statistics of a trained
    BatchNorm it computes exactly that layer's function.

    Formal guarantee: the output for a record, and the gradient of any sum of per-record losses
    with respect to `weight` and `bias`, are functions of that record alone, as long as the
    statistics are public. Statistics that came from private data are released as they are, and no
    epsilon of a later training covers them.

    Args:
        mean: (C,) the channel means.
        var: (C,) the channel variances.
        weight: (C,) the scale, default ones.
        bias: (C,) the shift, default zeros.
        eps: added to the variance.

    Shapes: (N, C, ...) -> (N, C, ...).

    Source: Ioffe and Szegedy, arXiv 1502.03167, equation of the inference network.
    """

    def __init__(
        self,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.statistics = FrozenStatistics(mean, var, eps)
        self.affine = ChannelAffine(
            torch.ones_like(mean) if weight is None else weight,
            torch.zeros_like(mean) if bias is None else bias,
        )

    @property
    def weight(self) -> nn.Parameter:
        return self.affine.weight

    @property
    def bias(self) -> nn.Parameter:
        return self.affine.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(self.statistics(x))


@register_grad_sampler(ChannelAffine)
def _channel_affine_grad_sample(
    layer: ChannelAffine, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients of the scale, sum of x * g, and of the shift, sum of g: each (N, C)."""
    grads = {}
    if layer.weight.requires_grad:
        grads[layer.weight] = torch.einsum("nc...,nc...->nc", activations[0], backprops)
    if layer.bias.requires_grad:
        grads[layer.bias] = torch.einsum("nc...->nc", backprops)
    return grads
