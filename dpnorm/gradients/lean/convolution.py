"""Convolutions: each record's gradient in one of three ways, or kept as input and slope."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.gradients.factors import Factors, Samples, norms_from_pairs
from dpnorm.gradients.lean.layer import (
    Forward,
    Gradients,
    Group,
    LeanLayer,
    Parameters,
    lean,
    summed,
)
from dpnorm.gradients.lean.windows import (
    own_padding,
    pairs,
    pairs_cost,
    rows_of_windows,
    windows_of,
)

# Where windows cost less than groups on a processor. A choice by the clock would change the last
# digits from run to run.
FEW_CHANNELS = 4  # of the input
MANY_CHANNELS = 2  # of the output, over the positions of all records
FEW_POSITIONS = 100  # of the output, over which a record's gradient is summed up
MANY_WEIGHTS = 50_000
# A record is worth a convolution of its own, in the place of windows
MUCH_WORK = 15_000_000  # floating-point operations for its gradient
MANY_POSITIONS = 500  # of the output, or else few channels of the input
WINDOWS = 2**19  # numbers in the windows of the records that are multiplied together
# A gradient with so few columns is found the other way round, if the rest makes up for turning it
FEW_COLUMNS, ENOUGH_ROWS, ENOUGH_POSITIONS = 32, 16, 256
GROUPS = 2**22  # weights of the records that are groups of one convolution: more take much memory
# Floating-point operations that cost as much as to write a number and read it twice, and by which
# small products are slower than those of the batch
TRAFFIC, SLOWNESS = 75, 3


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
        self._own = own_padding(module, self._edges)
        none = (0,) * len(module.stride)
        self.stride, self.dilation = list(module.stride), list(module.dilation)
        self.padding = list(none if self._own is None else self._own)

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
        none = [0] * len(self.stride)
        where = self.stride, self.padding, self.dilation, False, none, self.module.groups
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
        of_input = of_bias = None
        of_weight: Samples | None = None
        if wanted[0]:
            of_input = self._pulled(slope, x, weight, self.module.groups, 0)
        if wanted[1]:
            xs, slopes = group(x), group(slope)  # (records, rows, channels, *space)
            if xs.shape[1] > 1 or self.module.groups > 1:
                of_weight = self._by_groups(slopes, xs, weight.shape, scale)
            elif self._pairs_pay(slope, x, weight):
                of_weight = Convolved(slopes[:, 0] * scale, xs[:, 0], self, weight.shape)
            else:
                of_weight = self.gradients(slopes[:, 0], xs[:, 0], weight.shape, scale)
        if wanted[2]:
            of_bias = summed(slope.flatten(2).sum(2) * scale, group)
        return of_input, [of_weight, of_bias]

    def gradients(self, slopes: Tensor, xs: Tensor, shape: torch.Size, scale: float) -> Tensor:
        """Each record's gradient of a weight of this shape: (records, *shape)."""
        channels, kernel, positions = shape[1], prod(shape[2:]), prod(slopes.shape[2:])
        few = (
            channels < FEW_CHANNELS
            or positions < FEW_POSITIONS
            or kernel == 1
            or prod(shape) > MANY_WEIGHTS
        )
        if not few or slopes.device.type != "cpu":
            return self._by_groups(slopes[:, None], xs[:, None], shape, scale)
        much = kernel > 1 and 2 * positions * prod(shape) >= MUCH_WORK
        if much and (channels < FEW_CHANNELS or positions >= MANY_POSITIONS):
            return self._one_by_one(slopes, xs, shape, scale)
        return self._by_windows(slopes, xs, shape, scale)

    def summed_up(self, slopes: Tensor, xs: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of the weight, of all records together."""
        rows = len(xs) * prod(slopes.shape[2:])
        few = 0 < rows * MANY_CHANNELS <= shape[0] and prod(shape) > MANY_WEIGHTS
        if few and xs.device.type == "cpu":
            windows = rows_of_windows(self, xs, shape[2:], slopes.shape[2:])
            return product(slopes.movedim(0, -1).reshape(shape[0], rows), windows).view(shape)
        return self._pulled(slopes, xs, self.memory.empty(shape, slopes), 1, 1)

    def _pairs_pay(self, slope: Tensor, x: Tensor, weight: Tensor) -> bool:
        """Whether norms from pairs of positions cost less than each record's gradient does."""
        places = prod(slope.shape[2:])
        cost = pairs_cost(x.shape[1:], weight.shape[2:], slope.shape[2:])
        cost += 2 * places**2 * len(weight)
        return SLOWNESS * cost < weight.numel() * (1.4 * places + TRAFFIC)

    def _pulled(self, slope: Tensor, x: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        """The gradient of the input (0) or of the weight (1) of a whole batch."""
        none = [0] * len(self.stride)
        where: Any = (self.stride, self.padding, self.dilation, False, none, groups)
        mask = [which == 0, which == 1, False]
        found = torch.ops.aten.convolution_backward.default(slope, x, weight, None, *where, mask)
        return found[which]

    def _by_groups(self, slopes: Tensor, xs: Tensor, shape: torch.Size, scale: float) -> Tensor:
        """Each record's channels are a group of one convolution, and its rows the batch.

        The gradient of a group's weights is that of its record.
        """
        records, rows = xs.shape[:2]
        size = records
        if xs.device.type == "cpu":
            size = min(records, max(1, GROUPS // max(1, prod(shape))))
        if prod(shape[1:]) > prod(slopes.shape[3:]):  # then the slopes are less than what is found
            slopes, scale = slopes * scale, 1.0
        # a weight's form is asked for; its values are not read
        nobody = self.memory.empty((size * shape[0], *shape[1:]), slopes)
        found = []
        for x, slope in zip(xs.split(size), slopes.split(size), strict=True):
            few = len(x)
            x = x.transpose(0, 1).reshape(rows, -1, *x.shape[3:])
            slope = slope.transpose(0, 1).reshape(rows, -1, *slope.shape[3:])
            part = self._pulled(slope, x, nobody[: few * shape[0]], few * self.module.groups, 1)
            found.append((part if scale == 1.0 else part.mul_(scale)).view(few, *shape))
        if len(found) == 1:
            return found[0]
        return torch.cat(found, out=self.memory.empty((records, *shape), slopes))

    def _one_by_one(self, slopes: Tensor, xs: Tensor, shape: torch.Size, scale: float) -> Tensor:
        """Each record is a batch."""
        found = self.memory.empty((len(xs), *shape), slopes)
        nobody = self.memory.empty(shape, slopes)  # a form: see `_by_groups`
        for slope, x, own in zip(slopes.split(1), xs.split(1), found, strict=True):
            torch.mul(self._pulled(slope, x, nobody, 1, 1), scale, out=own)
        return found

    def _by_windows(self, slopes: Tensor, xs: Tensor, shape: torch.Size, scale: float) -> Tensor:
        """One matrix product a record: slopes times what each weight has met."""
        windows = windows_of(self, xs, shape[2:], slopes.shape[2:])
        records, out = slopes.shape[:2]
        columns = prod(shape[1:])
        slopes = slopes.flatten(2)
        found = self.memory.empty((records, out, columns), slopes)
        size = min(records, max(1, WINDOWS // max(1, prod(windows.shape[1:]))))
        plain = windows.is_contiguous()
        copied = windows if plain else self.memory.empty((size, *windows.shape[1:]), slopes)
        turns = columns < FEW_COLUMNS and out >= ENOUGH_ROWS and slopes.shape[2] >= ENOUGH_POSITIONS
        turned = self.memory.empty((size, columns, out), slopes) if turns else None
        for start in range(0, records, size):
            some = slice(start, start + size)
            few = windows[some]
            few = few if plain else copied[: len(few)].copy_(few)
            few = few.view(len(few), columns, -1)
            if turned is None:
                torch.baddbmm(
                    found[some],
                    slopes[some],
                    few.transpose(1, 2),
                    beta=0,
                    alpha=scale,
                    out=found[some],
                )
            else:
                part = turned[: len(few)]
                torch.bmm(few, slopes[some].transpose(1, 2), out=part)
                torch.mul(part.transpose(1, 2), scale, out=found[some])
        return found.view(records, *shape)


@dataclass(eq=False)
class Convolved(Factors):
    """The gradient of a convolution's weight as slopes (records, out, *space) and inputs.

    A weighted sum is the gradient of the batch with weighted slopes; a norm comes from the inner
    products of slopes, and of windows of the input, at each two positions.
    """

    layer: LeanConvolution
    shape: torch.Size

    def kind(self) -> tuple[Any, ...]:
        return (*super().kind(), self.layer, self.shape)

    def dense(self) -> Tensor:
        """See `Factors`."""
        return self.layer.gradients(self.slopes, self.inputs, self.shape, 1.0)

    def norms(self) -> Tensor:
        """See `Factors`."""
        space, kernel = self.slopes.shape[2:], self.shape[2:]
        slopes = self.slopes.flatten(2).transpose(1, 2)
        return norms_from_pairs(slopes, self.inputs, lambda x: pairs(self.layer, x, kernel, space))

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """See `Factors`."""
        slopes = self.slopes * weights.view(-1, *[1] * (self.slopes.dim() - 1))
        return self.layer.summed_up(slopes, self.inputs, self.shape)


def product(first: Tensor, second: Tensor) -> Tensor:
    """A matrix product with the transpose of the second matrix.

    The library of torch's convolutions multiplies faster than that of its matrix products on
    processors that the latter was not written for; to it each row of the first is a point.

    Args:
        first: (m, k).
        second: (n, k).

    Returns:
        (m, n).
    """
    rows, inner = first.shape
    if not torch.backends.mkldnn.is_available() or first.dtype != torch.float32:
        return first @ second.T
    points = first.contiguous().view(1, 1, rows, inner).permute(0, 3, 1, 2)  # channels last
    filters = second.contiguous().view(-1, inner, 1, 1)
    found = torch.mkldnn_convolution(points, filters, None, [0, 0], [1, 1], [1, 1], 1)
    return found.permute(0, 2, 3, 1).reshape(rows, len(second))
