"""Linear layers: a record's gradient of the weight is an outer product of what is there anyway."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpnorm.gradients.factors import Outer, OuterSum, Samples
from dpnorm.gradients.lean.layer import (
    Forward,
    Gradients,
    Group,
    LeanLayer,
    Parameters,
    lean,
)


@lean(nn.Linear)
class LeanLinear(LeanLayer):
    """y = x W^T + b over the last dimension of (rows, ..., in)."""

    def takes(self, x: Tensor) -> bool:
        return True

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias = parameters
        assert weight is not None
        rows = x.flatten(0, -2)
        found = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        # no view, which nobody could write in place behind a function of autograd's
        return torch.ops.aten._unsafe_view.default(found, (*x.shape[:-1], len(weight))), ()

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

        With one row a record its gradient stays two factors; with several too, where these are
        smaller than it is.
        """
        weight = parameters[0]
        assert weight is not None
        slopes = group(slope).flatten(1, -2) * scale  # (records, rows, out)
        of_weight: Samples | None = None
        if wanted[1]:
            rows = group(x).flatten(1, -2)
            if rows.shape[1] == 1:
                of_weight = Outer(slopes[:, 0], rows[:, 0])
            elif OuterSum.pays(rows.shape[1], *weight.shape):
                of_weight = OuterSum(slopes, rows)
            else:
                of_weight = slopes.transpose(1, 2) @ rows
        of_bias = slopes.sum(1) if wanted[2] else None
        return slope @ weight if wanted[0] else None, [of_weight, of_bias]
