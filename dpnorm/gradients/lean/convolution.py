"""Convolutions: all records as the groups of one convolution, or windows of a few at a time."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.gradients.lean.layer import (
    Forward,
    Gradients,
    Group,
    LeanLayer,
    Parameters,
    lean,
)

# Where windows cost less than groups on a processor. A choice by the clock would change the last
# digits from run to run.
FEW_CHANNELS = 4  # of the input
FEW_POSITIONS = 100  # of the output, over which a record's gradient is summed up
CHUNK = 8  # records whose windows stand in the cache together


@lean(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class LeanConvolution(LeanLayer):
    """Convolution of (rows, in, *space) to (rows, out, *space).

    Args:
        module: with a weight and a bias, and the form of a convolution.
        edges: what is padded around the input, in the order of `torch.nn.functional.pad`; default
            as torch's convolutions have it.
    """

    def __init__(self, module: Any, edges: Sequence[int] | None = None) -> None:
        super().__init__(module)
        self._edges = list(module._reversed_padding_repeated_twice if edges is None else edges)
        self._own = _own_padding(module, self._edges)
        none = (0,) * len(module.stride)
        self._stride, self._dilation = list(module.stride), list(module.dilation)
        self._padding = list(none if self._own is None else self._own)

    def takes(self, x: Tensor) -> bool:
        return x.dim() == self.module.weight.dim()

    def prepared(self, x: Tensor) -> Tensor:
        if self._own is not None:
            return x
        mode = self.module.padding_mode
        return F.pad(x, self._edges, mode="constant" if mode == "zeros" else mode)

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias = parameters
        assert weight is not None
        none = [0] * len(self._stride)
        where = self._stride, self._padding, self._dilation, False, none, self.module.groups
        return torch.convolution(x, weight, bias, *where), ()

    def backward(
        self,
        slope: Tensor,
        x: Tensor,
        parameters: Parameters,
        kept: Sequence[Tensor],
        *,
        wanted: Sequence[bool],
        group: Group,
        scale: float,
    ) -> Gradients:
        """See `LeanLayer`."""
        weight = parameters[0]
        assert weight is not None
        of_input = of_weight = of_bias = None
        if wanted[0]:
            of_input = self._pulled(slope, x, weight, self.module.groups, 0)
        if wanted[1]:
            xs, slopes = group(x), group(slope)  # (records, rows, channels, *space)
            if xs.shape[1] == 1 and self._takes_windows(slope, weight):
                of_weight = self._by_windows(slopes[:, 0], xs[:, 0], weight, scale)
            else:
                of_weight = self._by_groups(slopes, xs, weight, scale)
        if wanted[2]:
            of_bias = group(slope.flatten(2).sum(2) * scale).sum(1)
        return of_input, [of_weight, of_bias]

    def _takes_windows(self, slope: Tensor, weight: Tensor) -> bool:
        few = (
            weight.shape[1] < FEW_CHANNELS
            or slope[0, 0].numel() < FEW_POSITIONS
            or prod(weight.shape[2:]) == 1
        )
        return bool(few and self.module.groups == 1 and slope.device.type == "cpu")

    def _pulled(self, slope: Tensor, x: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        """The gradient of the input (0) or of the weight (1) of a whole batch."""
        none = [0] * len(self._stride)
        where: Any = (self._stride, self._padding, self._dilation, False, none, groups)
        mask = [which == 0, which == 1, False]
        found = torch.ops.aten.convolution_backward(slope, x, weight, None, *where, mask)
        return found[which]

    def _by_groups(self, slopes: Tensor, xs: Tensor, weight: Tensor, scale: float) -> Tensor:
        """Each record's channels are a group of one convolution, and its rows the batch.

        The gradient of a group's weights is that of its record.
        """
        records, rows = xs.shape[:2]
        xs = xs.transpose(0, 1).reshape(rows, -1, *xs.shape[3:])
        slopes = slopes.transpose(0, 1).reshape(rows, -1, *slopes.shape[3:])
        smaller = slopes.numel() < records * weight.numel()
        if smaller:
            slopes = slopes * scale
        shape = (records * len(weight), *weight.shape[1:])
        nobody = weight.new_empty(1).expand(shape)  # its values are not read
        found = self._pulled(slopes, xs, nobody, records * self.module.groups, 1)
        found = found.view(records, *weight.shape)
        return found if smaller else found.mul_(scale)

    def _by_windows(self, slopes: Tensor, xs: Tensor, weight: Tensor, scale: float) -> Tensor:
        """One matrix product a record: slopes times what each weight has met."""
        around = [n for padding in reversed(self._padding) for n in (padding, padding)]
        xs = F.pad(xs, around) if any(around) else xs
        records, out = slopes.shape[:2]
        places = prod(weight.shape[1:])
        slopes = slopes.flatten(2)
        found = slopes.new_empty((records, out, places))
        shape = (*weight.shape[1:], *self._positions(xs, weight))
        first, second, *space = xs.stride()
        steps = [s * d for s, d in zip(space, self._dilation, strict=True)]
        jumps = [s * d for s, d in zip(space, self._stride, strict=True)]
        copied: Tensor | None = None
        for start in range(0, records, CHUNK):
            few = xs[start : start + CHUNK]
            windows = few.as_strided((len(few), *shape), (first, second, *steps, *jumps))
            if not windows.is_contiguous():
                if copied is None:
                    copied = xs.new_empty((CHUNK, *shape))
                windows = copied[: len(few)].copy_(windows)
            target = found[start : start + CHUNK]
            torch.baddbmm(
                target,
                slopes[start : start + CHUNK],
                windows.reshape(len(few), places, -1).transpose(1, 2),
                beta=0,
                alpha=scale,
                out=target,
            )
        return found.view(records, *weight.shape)

    def _positions(self, padded: Tensor, weight: Tensor) -> list[int]:
        """How many positions the output has along each dimension of space."""
        return [
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, dilation, kernel, stride in zip(
                padded.shape[2:], self._dilation, weight.shape[2:], self._stride, strict=True
            )
        ]


def _own_padding(module: Any, edges: Sequence[int]) -> tuple[int, ...] | None:
    """The zeros that the convolution itself adds on both sides; None where others come before."""
    if module.padding_mode != "zeros":
        return None
    if module.padding == "valid":
        return (0,) * len(module.stride)
    if isinstance(module.padding, str):  # "same"
        before, after = tuple(edges[-2::-2]), tuple(edges[::-2])
        return before if before == after else None
    return tuple(module.padding)
