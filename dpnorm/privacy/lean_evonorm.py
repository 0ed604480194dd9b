"""EvoNorm-S0 and ScaleNorm, run lean."""

import math
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from dpnorm.gradients.lean import LeanLayer, lean
from dpnorm.gradients.lean.layer import Forward, Gradients, Group, Parameters, summed
from dpnorm.norms import EvoNormS0, ScaleNorm
from dpnorm.norms.channels import per_channel


@lean(EvoNormS0)
class LeanEvoNorm(LeanLayer):
    """y = weight * x * s / std + bias, s = sigmoid(v * x), std of the groups of a row.

    With the slope g, h = g * weight / std, M values in a group and their mean m, the gradients are
    the sum of g * x * s / std of the weight, of g of the bias, of h * x^2 * s * (1 - s) of v, and

        h * (s + v * x * s * (1 - s)) - (x - m) * sum_group(h * x * s) / (M * std^2)
    """

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        return self.module.weight, self.module.bias, self.module.v

    def takes(self, x: Tensor) -> bool:
        return x.shape[1] == len(self.module.weight) and x[0].numel() > 0

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias, v = parameters
        assert weight is not None
        assert bias is not None
        assert v is not None
        gate, std = torch.sigmoid(x * per_channel(v, x)), self.module.group_std(x)
        return x * gate / std * per_channel(weight, x) + per_channel(bias, x), (gate, std)

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
        (weight, _, v), (gate, std) = parameters, kept
        assert weight is not None
        assert v is not None
        gated, inward = x * gate, slope * per_channel(weight, x) / std
        bent = gated * (1 - gate)
        of_input = None
        if wanted[0]:
            groups = self.module.groups
            size = prod(x.shape[1:]) // groups
            values = x.reshape(len(x), groups, size)
            along = (inward * gated).reshape(values.shape).sum(2, keepdim=True)
            through = (values - values.mean(2, keepdim=True)) * along / size
            of_input = inward * (gate + per_channel(v, x) * bent)
            of_input = of_input - through.reshape(x.shape) / std.square()

        def by_record(values: Tensor) -> Tensor:
            return summed(values.view(*x.shape[:2], -1).sum(2) * scale, group)

        return of_input, [
            by_record(slope * gated / std) if wanted[1] else None,
            by_record(slope.contiguous()) if wanted[2] else None,
            by_record(inward * x * bent) if wanted[3] else None,
        ]


@lean(ScaleNorm)
class LeanScaleNorm(LeanLayer):
    """y = gain * x / max(|x| / sqrt(P), eps).

    With l what a row is divided by, u = x / l, P positions and g the slope, the gradients are the
    sum of g * u of the gain, and of x

        gain / l * (g - u * sum(g * u) / P), without the last term where l is eps
    """

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        return (self.module.gain,)

    def takes(self, x: Tensor) -> bool:
        return x[0].numel() > 0

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        assert parameters[0] is not None
        unit = self.module.normalized(x)
        return unit * parameters[0], (unit,)

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
        gain, unit = parameters[0], kept[0].flatten(1)
        assert gain is not None
        slopes, values = slope.flatten(1), x.flatten(1)
        along = (slopes * unit).sum(1)
        of_input = None
        if wanted[0]:
            length = torch.linalg.vector_norm(values, dim=1) / math.sqrt(prod(x.shape[2:]))
            inward = (along / prod(x.shape[2:])).masked_fill(length < self.module.eps, 0.0)
            factor = gain / length.clamp_min(self.module.eps)
            of_input = (slopes - unit * inward[:, None]) * factor[:, None]
            of_input = of_input.view(x.shape)
        return of_input, [summed(along * scale, group) if wanted[1] else None]
