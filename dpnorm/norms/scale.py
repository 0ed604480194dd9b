"""ScaleNorm: one record divided by its length, times one learned number."""

import math

import torch
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn


class ScaleNorm(nn.Module):
    """Gives every record the same length, which is learned.

        y = g * x / max(||x|| / sqrt(P), eps)

    ||x|| is the Euclidean norm of all values of a record and P the number of its positions, 1 for
    records of shape (C,), where this is the published formula. On maps ||x|| / sqrt(P) is the
    root mean square, over the positions, of the length of a position's channel vector.

    g starts at sqrt(C), as published, so that a record's values start with root mean square 1. The
    effective factor of ||x|| is g sqrt(P), which starts at the root of the number of values in a
    record: the layer needs to know C only, as the BatchNorm whose place it takes, and g does not
    depend on the size of an image.

    One number is all that is trained, against 2 C in other norms: under DP-SGD noise is added to
    one coordinate. The additional layer behind residual sums that Klause et al. (arXiv 2203.00324)
    call ScaleNorm is another one: the variant `scale`.

    Formal guarantee: the output for a record, and the gradient of any sum of per-record losses
    with respect to `gain`, are functions of that record alone.

    Args:
        channels: C, the size of dimension 1.
        eps: the least length that a record is divided by.

    Shapes: (N, C, *) -> (N, C, *); `gain`, g above, is a number, ().

    Source: Nguyen and Salazar, arXiv 1910.05895.

    >>> ScaleNorm(2)(torch.tensor([[3.0, -3.0]])).detach().round(decimals=3).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.gain = nn.Parameter(torch.tensor(math.sqrt(channels)))

    def normalized(self, x: Tensor) -> Tensor:
        """The records with g = 1: (N, C, *) -> (N, C, *).

        Half-precision records are squared in float32, where 300^2 does not overflow.
        """
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        length = torch.linalg.vector_norm(wide.flatten(1), dim=1)
        length = (length / math.sqrt(math.prod(x.shape[2:]))).clamp_min(self.eps)
        return (wide / length.view(-1, *[1] * (x.dim() - 1))).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalized(x) * self.gain

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


@register_grad_sampler(ScaleNorm)
def _scale_grad_sample(
    layer: ScaleNorm, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients of g, the sum of x_hat * g' over a record's values: (N,)."""
    if not layer.gain.requires_grad:
        return {}
    return {layer.gain: torch.einsum("n...,n...->n", layer.normalized(activations[0]), backprops)}
