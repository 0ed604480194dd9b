"""Weight-standardized convolutions, run lean: the kernels' gradients, taken back to the weights."""

from collections.abc import Sequence

from torch import Tensor, nn

from dpnorm.gradients.factors import dense
from dpnorm.gradients.lean import LeanConvolution, lean
from dpnorm.gradients.lean.layer import Forward, Gradients, Group, Parameters
from dpnorm.norms import WeightStandardizedConv


@lean(WeightStandardizedConv)
class LeanStandardizedConvolution(LeanConvolution):
    """A convolution with kernels gain * w_hat + offset, w_hat = (w - mean(w)) / std(w).

    With G the gradient of a record with respect to the kernel of an output channel, of P weights,
    its gradients are the sum of G * w_hat of the gain, the sum of G of the offset, and of w

        gain / std * (G - mean(G) - w_hat * mean(G * w_hat))
    """

    def __init__(self, module: WeightStandardizedConv) -> None:
        super().__init__(module, module._edges)

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        module = self.module
        return module.weight, module.gain, module.offset, module.bias

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        kernels, standardized, std = self.module.standardized()
        output, _ = super().forward(x, (kernels, parameters[3]), ())
        return output, (kernels, standardized, std)

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
        (kernels, standardized, std), gain = kept, parameters[1]
        assert gain is not None
        of_input, (of_kernels, of_bias) = super().backward(
            slope,
            x,
            (kernels, None),
            (),
            wanted=(wanted[0], any(wanted[1:4]), wanted[4]),
            group=group,
            scale=scale,
        )
        if of_kernels is None:
            return of_input, [None, None, None, of_bias]
        each, unit = dense(of_kernels).flatten(2), standardized.flatten(1)  # (records, out, P)
        along, total = (each * unit).sum(2), each.sum(2)
        of_weight = None
        if wanted[1]:
            places = unit.shape[1]
            inward = total[:, :, None] + unit * along[:, :, None]
            of_weight = (each - inward / places) * (gain / std)[:, None]
            of_weight = of_weight.view(-1, *kernels.shape)
        return of_input, [
            of_weight,
            along if wanted[2] else None,
            total if wanted[3] else None,
            of_bias,
        ]
