"""GroupNorm and InstanceNorm: the kernel of the batch gives the records' gradients for nothing."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from dpnorm.gradients.lean.layer import (
    Forward,
    Gradients,
    Group,
    LeanLayer,
    Parameters,
    lean,
    summed,
)


class LeanGroupNorm(LeanLayer):
    """Normalization of (rows, C, ...) over groups of channels of each row.

    Args:
        module: that owns weight and bias, (C,) each.
        groups: how many.
        channels: C.
    """

    def __init__(self, module: nn.GroupNorm | _InstanceNorm, groups: int, channels: int) -> None:
        super().__init__(module)
        self._groups, self._channels = groups, channels

    def takes(self, x: Tensor) -> bool:
        dimensions = _DIMENSIONS.get(type(self.module), x.dim())
        # of a group with one number the module has an error to say
        several = prod(x.shape[1:]) > self._groups
        return x.dim() == dimensions and x.shape[1] == self._channels and several

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias = parameters
        rows, channels, positions = len(x), x.shape[1], prod(x.shape[2:])
        output, mean, rstd = torch.native_group_norm(
            x.contiguous(), weight, bias, rows, channels, positions, self._groups, self.module.eps
        )
        return output, (mean, rstd)

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
        """See `LeanLayer`.

        The kernel adds up the gradients of weight and bias over the rows. All rows side by side as
        the channels of one row, in as many groups, are normalized alike, and there is nothing to
        add up then: what it gives is (rows * C,).
        """
        weight, (mean, rstd) = parameters[0], kept
        rows, channels = x.shape[:2]
        as_one = (1, rows * channels, prod(x.shape[2:]))
        of_input, of_weight, of_bias = torch.ops.aten.native_group_norm_backward.default(
            slope.contiguous().view(as_one),
            x.contiguous().view(as_one),
            mean.view(1, -1),
            rstd.view(1, -1),
            None if weight is None else weight.expand(rows, -1).reshape(-1),
            *as_one,
            rows * self._groups,
            list(wanted),
        )

        def by_record(found: Tensor) -> Tensor:
            return summed(found.view(rows, channels) * scale, group)

        return of_input.view(x.shape) if wanted[0] else None, [
            by_record(of_weight) if wanted[1] else None,
            by_record(of_bias) if wanted[2] else None,
        ]


_DIMENSIONS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}


@lean(nn.GroupNorm)
def group_norm(module: nn.GroupNorm) -> LeanLayer:
    """The lean layer of a GroupNorm."""
    return LeanGroupNorm(module, module.num_groups, module.num_channels)


@lean(*_DIMENSIONS)
def instance_norm(module: _InstanceNorm) -> LeanLayer | None:
    """The lean layer of an InstanceNorm without running statistics: a group for each channel."""
    if module.running_mean is not None:
        return None
    return LeanGroupNorm(module, module.num_features, module.num_features)
