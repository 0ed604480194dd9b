"""LayerNorm: the kernel of the batch for the input, one pass more for weight and bias."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpnorm.gradients.lean.layer import (
    Forward,
    Gradients,
    Group,
    LeanLayer,
    Parameters,
    lean,
)


@lean(nn.LayerNorm)
class LeanLayerNorm(LeanLayer):
    """Normalization of (rows, ..., *normalized_shape) over the last dimensions."""

    def takes(self, x: Tensor) -> bool:
        shape = self.module.normalized_shape
        return x.dim() > len(shape) and x.shape[-len(shape) :] == shape and x[0].numel() > 0

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight, bias = parameters
        shape = list(self.module.normalized_shape)
        output, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, self.module.eps)
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
        """See `LeanLayer`."""
        weight, (mean, rstd) = parameters[0], kept
        shape = list(self.module.normalized_shape)
        of_input = None
        if wanted[0]:
            of_input = torch.ops.aten.native_layer_norm_backward.default(
                slope, x, shape, mean, rstd, weight, None, [True, False, False]
            )[0]

        def by_record(rows: Tensor) -> Tensor:
            found = group(rows)  # (records, rows, ..., *shape)
            return found.flatten(1, -len(shape) - 1).sum(1) * scale

        return of_input, [
            by_record(slope * ((x - mean) * rstd)) if wanted[1] else None,
            by_record(slope) if wanted[2] else None,
        ]
