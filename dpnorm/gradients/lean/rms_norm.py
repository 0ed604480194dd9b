"""RMSNorm over the last dimensions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.gradients.lean.layer import Forward, Gradients, Group, LeanLayer, Parameters, lean


@lean(nn.RMSNorm)
class LeanRMSNorm(LeanLayer):
    """y = weight * x / rms(x) for (rows, ..., *normalized_shape), over the last dimensions.

    With x_hat = x / rms(x) and g the slope times the weight, the gradient of x is
    (g - x_hat * mean(g * x_hat)) / rms(x), and that of the weight the sum of slope * x_hat.
    """

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        return (self.module.weight,)

    def takes(self, x: Tensor) -> bool:
        shape = self.module.normalized_shape
        return x.dim() > len(shape) and x.shape[-len(shape) :] == shape and x[0].numel() > 0

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        shape, eps = list(self.module.normalized_shape), self.module.eps
        output = F.rms_norm(x, shape, parameters[0], eps)
        own = tuple(range(-len(shape), 0))
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        return output, (torch.rsqrt(x.square().mean(own, keepdim=True) + eps),)

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
        weight, own = parameters[0], len(self.module.normalized_shape)
        unit = x * kept[0]
        of_input = of_weight = None
        if wanted[0]:
            inward = slope if weight is None else slope * weight
            along = (inward * unit).mean(tuple(range(-own, 0)), keepdim=True)
            of_input = (inward - unit * along) * kept[0]
        if wanted[1]:
            of_weight = group(slope * unit).flatten(1, -own - 1).sum(1) * scale
        return of_input, [of_weight]
