"""Convolutions whose kernels are standardized, output channel by output channel."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_EPS = 1e-10  # beside the variance of a kernel, so that a constant kernel has a finite gradient


class WeightStandardizedConv(nn.Module):
    """A convolution with kernels of mean `offset` and standard deviation `gain`.

        w_hat = (w - mean(w)) / sqrt(var(w) + eps)        over all but the output channel
        y     = conv(x, gain * w_hat + offset) + bias

    `gain` = 1 and `offset` = 0 is weight standardization as published. With the mean and the
    standard deviation of the kernels themselves it is the original convolution, so that a
    trained layer can be standardized without a change of its function.

    The layer holds its parameters itself (no parametrization), so per-sample gradients come from
    functorch, or in mode "lean" from those of the kernels.

    Formal guarantee: the kernels depend on parameters only, so that the output for a record, and
    the gradient of any sum of per-record losses, are functions of that record alone.

    Args:
        conv: the convolution (1, 2 or 3 dimensions) whose form and kernels are taken over.
        preserve: start with the kernels' own mean and standard deviation, not with 0 and 1.
        eps: added to the variance of a kernel.

    Shapes: those of `conv`; `gain` and `offset` are (C_out,).

    Source: Qiao et al., arXiv 1903.10520; under DP-SGD De et al., arXiv 2204.13650.
    """

    bias: nn.Parameter | None

    def __init__(self, conv: Any, *, preserve: bool = True, eps: float = _EPS) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.padding, self.padding_mode = conv.padding, conv.padding_mode
        self._edges = list(conv._reversed_padding_repeated_twice)
        self.eps = eps
        weight = conv.weight.detach()
        std, mean = _moments(weight.double(), eps)
        gain = std if preserve else torch.ones_like(std)
        offset = mean if preserve else torch.zeros_like(mean)
        self.weight = nn.Parameter(weight.clone(), requires_grad=conv.weight.requires_grad)
        if conv.bias is None:
            self.register_parameter("bias", None)
        else:
            self.bias = nn.Parameter(conv.bias.detach().clone(), conv.bias.requires_grad)
        self.gain = nn.Parameter(gain.to(weight), requires_grad=conv.weight.requires_grad)
        self.offset = nn.Parameter(offset.to(weight), requires_grad=conv.weight.requires_grad)

    def kernels(self) -> Tensor:
        """The kernels that the convolution uses: (C_out, C_in / groups, *kernel_size)."""
        return self.standardized()[0]

    def standardized(self) -> tuple[Tensor, Tensor, Tensor]:
        """The kernels, w_hat of the same shape, and the standard deviations (C_out,)."""
        std, mean = _moments(self.weight, self.eps)
        shape = (-1, *[1] * (self.weight.dim() - 1))
        unit = (self.weight - mean.view(shape)) / std.view(shape)
        return unit * self.gain.view(shape) + self.offset.view(shape), unit, std

    def forward(self, x: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._edges, mode=self.padding_mode), 0
        convolve = _FORWARD[self.weight.dim() - 2]
        return convolve(
            x, self.kernels(), self.bias, self.stride, padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        out, inner, *kernel = self.weight.shape
        sizes = f"{inner * self.groups}, {out}, kernel_size={tuple(kernel)}"
        return f"{sizes}, stride={self.stride}, padding={self.padding}"


def _moments(weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each output channel's kernel: two (C_out,) tensors."""
    mean = weight.flatten(1).mean(1)
    centered = weight.flatten(1) - mean[:, None]
    return torch.sqrt(centered.square().mean(1) + eps), mean


def fan_in(conv: nn.Module) -> int:
    """The number of weights of one output channel; standardizing fewer than 2 erases them."""
    weight: Any = conv.weight
    return math.prod(weight.shape[1:])
