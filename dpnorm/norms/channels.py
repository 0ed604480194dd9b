"""What a batch normalization without its batch is made of: constants, then a scale and a shift."""

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from opacus.grad_sample import register_grad_sampler
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.norms.own_scale import mean_square, own_scale, scaled, spread


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """Views a (C,) vector so that it broadcasts along dimension 1 of `like`."""
    return vector.view(1, -1, *[1] * (like.dim() - 2))


_NAMES = {  # of the entries of a BatchNorm's state
    "running_mean": "statistics.running_mean",
    "running_var": "statistics.running_var",
    "weight": "affine.weight",
    "bias": "affine.bias",
}


class _Standardize(torch.autograd.Function):
    """`(x - mean) / sqrt(var + eps)` in one pass forward, and one back.

    torch's own batch normalization takes one pass forward and three back; written in operators,
    it is two and one.
    """

    generate_vmap_rule = True  # for whoever runs the layer under torch.func

    @staticmethod
    def forward(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, mean.dtype)
        return F.batch_norm(x.to(wide), mean.to(wide), var.to(wide), eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, var, eps = inputs
        ctx.dtype = x.dtype
        ctx.save_for_backward(torch.rsqrt(var + eps))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (scale,) = ctx.saved_tensors
        return (gradient * per_channel(scale, gradient)).to(ctx.dtype), None, None, None


class FixedStatistics(nn.Module):
    """Normalizes each channel by constants: `(x - running_mean) / sqrt(running_var + eps)`.

    It holds no parameter, and neither `train()` nor a forward pass changes its buffers. The
    buffers stand in a module of their own because Opacus refuses buffers beside trainable
    parameters.

    Shapes: (N, C, ...) -> (N, C, ...); buffers `running_mean` and `running_var` are (C,).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, mean: Tensor, var: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("running_mean", mean.detach().clone())
        self.register_buffer("running_var", var.detach().clone())
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _Standardize.apply(x, self.running_mean, self.running_var, self.eps)

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, eps={self.eps}"


class ChannelAffine(nn.Module):
    """Scales and shifts each channel: `weight * x + bias`, trainable.

    With a record_share it is `weight * own_scale * x + bias`, see `ChannelNorm`.

    Shapes: (N, C, ...) -> (N, C, ...); `weight` and `bias` are (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, record_share: float = 0.0) -> None:
        super().__init__()
        self.record_share = record_share
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor, square: Tensor | None = None) -> Tensor:
        """`square` is `mean_square(x)`: given, it is computed once for every later use."""
        return scaled(x, self.weight, self.bias, self.record_share, square)

    def extra_repr(self) -> str:
        return str(len(self.weight))


class ChannelNorm(nn.Module):
    """Base of the layers that normalize channels by statistics which are constants in the pass.

        z = (x - running_mean) / sqrt(running_var + eps)
        y = weight * z / sqrt(1 - record_share + record_share * mean(z^2)) + bias

    Where the statistics come from is the subclass's matter. With a `record_share` of 0 (the
    default) this is BatchNorm in evaluation. Statistics that move while a network is trained, and
    that no gradient goes through, let it push activations in directions that the next statistics
    take away again: even with the exact statistics of each batch a deep network then learns
    little. A record_share above 0 gives some of the missing gradient back, record by record: the
    mean runs over all values of one record, and where it is 1, as the statistics want it, y is the
    same as without. At 1 each record is normalized by its own root mean square.

    Args:
        num_features: C.
        eps: added to the variance.
        affine: whether there is a trainable scale and shift.
        record_share: how far a record's own mean square counts, in [0, 1].
        device: of the layer.
        dtype: of the layer.

    `load_state_dict` takes the state of a BatchNorm as well, so that a trained network can be
    loaded into one that is built with these layers.

    Shapes: (N, C, ...) -> (N, C, ...).
    """

    dimensions: ClassVar[tuple[int, ...]] = ()  # that an input may have; () for any from 2 on
    statistics: FixedStatistics
    affine: ChannelAffine | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        record_share: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1 or not eps >= 0 or not 0 <= record_share <= 1:
            raise InputError(
                f"{type(self).__name__}({num_features}, eps={eps}, record_share={record_share}): "
                "num_features is to be at least 1, eps at least 0, record_share in [0, 1]"
            )
        self.record_share = record_share
        ones = torch.ones(num_features, device=device, dtype=dtype)
        zeros = torch.zeros_like(ones)
        self.statistics = self._new_statistics(zeros, ones, eps)
        self.affine = ChannelAffine(ones, zeros, record_share=record_share) if affine else None

    @classmethod
    def with_statistics(
        cls,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        **options: Any,
    ) -> Self:
        """A layer that starts with these statistics, scale and shift: (C,) tensors."""
        layer = cls(len(mean), device=mean.device, dtype=mean.dtype, **options)
        with torch.no_grad():
            layer.statistics.running_mean.copy_(mean)
            layer.statistics.running_var.copy_(var)
            if weight is not None and layer.weight is not None:
                layer.weight.copy_(weight)
            if bias is not None and layer.bias is not None:
                layer.bias.copy_(bias)
        return layer

    def _new_statistics(self, mean: Tensor, var: Tensor, eps: float) -> FixedStatistics:
        return FixedStatistics(mean, var, eps)

    @property
    def num_features(self) -> int:
        return len(self.statistics.running_mean)

    @property
    def weight(self) -> nn.Parameter | None:
        return getattr(self.affine, "weight", None)

    @property
    def bias(self) -> nn.Parameter | None:
        return getattr(self.affine, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or (self.dimensions and x.dim() not in self.dimensions):
            wanted = " or ".join(map(str, self.dimensions)) or "2 or more"
            raise InputError(
                f"{type(self).__name__} was given a tensor of {x.dim()} dimensions; it takes "
                f"{wanted}: (N, C, ...)"
            )
        z = self.statistics(x)
        if self.affine is None:
            scale = own_scale(mean_square(z), self.record_share)
            return z * spread(scale.to(z), z) if self.record_share else z
        return self.affine(z, mean_square(z.detach())) if self.record_share else self.affine(z)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Gives the entries of a BatchNorm's state the names that they have here."""
        if f"{prefix}running_mean" in state_dict:
            for old, new in _NAMES.items():
                if f"{prefix}{old}" in state_dict:
                    state_dict[f"{prefix}{new}"] = state_dict.pop(f"{prefix}{old}")
            state_dict.pop(f"{prefix}num_batches_tracked", None)
            for name, buffer in self.named_buffers():
                if name not in _NAMES.values():  # what no BatchNorm has stays as it is
                    state_dict.setdefault(f"{prefix}{name}", buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"record_share={self.record_share}" if self.record_share else ""


@register_grad_sampler(ChannelAffine)
def _channel_affine_grad_sample(
    layer: ChannelAffine, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients of the scale, sum of x * g, and of the shift, sum of g: each (N, C)."""
    x, *square = activations
    gradient = backprops.flatten(2) if backprops.dim() > 2 else backprops.unsqueeze(2)
    grads = {}
    if layer.weight.requires_grad:
        # not by einsum: its products of single rows take several times as long
        own = (x.reshape(gradient.shape) * gradient).sum(2)
        if layer.record_share:
            scale = own_scale(square[0] if square else mean_square(x), layer.record_share)
            own = own * scale.to(own)[:, None]
        grads[layer.weight] = own
    if layer.bias.requires_grad:
        grads[layer.bias] = gradient.sum(2)
    return grads
