"""dpnorm's own norms that end in a scale and a shift of each channel, run lean."""

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from dpnorm.gradients.lean import LeanLayer, lean
from dpnorm.gradients.lean.layer import Forward, Gradients, Group, Parameters, summed
from dpnorm.norms import RecordRMSNorm
from dpnorm.norms.channels import ChannelAffine
from dpnorm.norms.own_scale import mean_square, own_scale, spread


class LeanChannelScale(LeanLayer):
    """y = weight * s * x + bias, with a number s of each row that depends on the row's mean square.

        s = 1 / sqrt(a + b * mean(x^2))

    With p = the sum of x * g over the positions, (rows, C), and M values in a row, the gradients
    are s * p of the weight, the sum of g of the bias, and of x

        weight * s * g - x * (b / M) * s^3 * (p @ weight)

    so that what the records say of weight and bias is needed for x anyway.
    """

    def takes(self, x: Tensor) -> bool:
        return x.dim() >= 2 and x.shape[1] == len(self.module.weight) and x[0].numel() > 0

    @property
    def share(self) -> float:
        """b; 0 where s is 1."""
        return 1.0

    @abstractmethod
    def row_scale(self, square: Tensor) -> Tensor:
        """s of the rows' mean squares, (rows,)."""

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias = parameters
        assert weight is not None
        assert bias is not None
        if not self.share:
            return torch.addcmul(spread(bias[None], x), x, spread(weight[None], x)), ()
        scale = self.row_scale(constants[0] if constants else mean_square(x))
        factor = weight * scale[:, None]
        return torch.addcmul(spread(bias[None], x), x, spread(factor, x)), (scale,)

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
        flat = (*x.shape[:2], prod(x.shape[2:]))
        values, slopes = x.reshape(flat), slope.reshape(flat)
        products = values * slopes
        along, shift = products.sum(2), slopes.sum(2)
        own = kept[0][:, None] if kept else torch.ones_like(along[:, :1])
        of_input = None
        if wanted[0]:  # in the memory of the products
            of_input = torch.mul(slopes, (own * weight)[:, :, None], out=products)
            if kept:
                inward = (-self.share / prod(flat[1:])) * own**3 * (along @ weight)[:, None]
                of_input = of_input.addcmul_(values, inward[:, :, None])
            of_input = of_input.view(x.shape)

        def by_record(rows: Tensor) -> Tensor:
            return summed(rows * scale, group)

        return of_input, [
            by_record(along * own) if wanted[1] else None,
            by_record(shift) if wanted[2] else None,
        ]


@lean(ChannelAffine)
class LeanChannelAffine(LeanChannelScale):
    """The affine part of Private-, Public- and FrozenBatchNorm."""

    @property
    def share(self) -> float:
        return float(self.module.record_share)

    def takes_constants(self, x: Tensor, constants: tuple[Any, ...]) -> bool:
        return not constants or (len(constants) == 1 and _is_square_of(constants[0], x))

    def row_scale(self, square: Tensor) -> Tensor:
        return own_scale(square, self.share)


@lean(RecordRMSNorm)
class LeanRMSNorm(LeanChannelScale):
    """A record over its own root mean square."""

    def row_scale(self, square: Tensor) -> Tensor:
        return torch.rsqrt(square + self.module.eps)


def _is_square_of(square: Any, x: Tensor) -> bool:
    known = isinstance(square, Tensor) and not square.requires_grad
    return known and square.dtype == x.dtype and square.shape == x.shape[:1]
