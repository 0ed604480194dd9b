"""Batch normalization with the statistics of public records."""

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.norms.channels import ChannelNorm, FixedStatistics


class PublicStatistics(FixedStatistics):
    """The statistics of a `PublicBatchNorm`: constants, but while public records run through.

    Shapes: (N, C, ...) -> (N, C, ...); buffers `running_mean` and `running_var` are (C,).
    """

    def __init__(self, mean: Tensor, var: Tensor, eps: float) -> None:
        super().__init__(mean, var, eps)
        self.refreshing = False  # whether what comes in is public

    def forward(self, x: Tensor) -> Tensor:
        if self.refreshing:
            self._take(x)
        return super().forward(x)

    @torch.no_grad()
    def _take(self, public: Tensor) -> None:
        values = public.transpose(0, 1).flatten(1)
        if values.shape[1] < 2:
            raise InputError(
                f"a channel has {values.shape[1]} value in all of the public records, and no "
                "variance: pass at least two records"
            )
        wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        self.running_mean.copy_(wide.mean(1))
        self.running_var.copy_(wide.var(1, correction=0))


class PublicBatchNorm(ChannelNorm):
    """BatchNorm with statistics of public records, fresh at each step.

        y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

    `refresh_statistics(model, public_inputs)` runs public records alone through the current
    network, without gradients, and each layer takes their mean and variance; private records are
    then normalized by these constants. `dpnorm.PrivacyEngine` does so before the first step and
    after each. The published code of the source takes the statistics from the union of private
    and public rows, which couples the private ones; here they come from public rows only.

    Formal guarantee: the output for a private record, and the gradient of any sum of per-record
    losses, are functions of that record, of the weights and of the public records. What is public
    is the user's word: no epsilon covers those records.

    Args: those of `ChannelNorm`.

    Shapes: (N, C, ...) -> (N, C, ...).

    Source: Davody et al., arXiv 2006.10919.
    """

    def _new_statistics(self, mean: Tensor, var: Tensor, eps: float) -> PublicStatistics:
        return PublicStatistics(mean, var, eps)


class PublicBatchNorm1d(PublicBatchNorm):
    """`PublicBatchNorm` on (N, C) or (N, C, L)."""

    dimensions = (2, 3)


class PublicBatchNorm2d(PublicBatchNorm):
    """`PublicBatchNorm` on (N, C, H, W)."""

    dimensions = (4,)


class PublicBatchNorm3d(PublicBatchNorm):
    """`PublicBatchNorm` on (N, C, D, H, W)."""

    dimensions = (5,)


def public_statistics(model: nn.Module) -> list[PublicStatistics]:
    """The modules of a model whose statistics come from public records."""
    return [m for m in model.modules() if isinstance(m, PublicStatistics)]


def refresh_statistics(
    model: nn.Module, public_inputs: Tensor | tuple[Tensor, ...] | dict[str, Tensor]
) -> None:
    """Sets the statistics of every `PublicBatchNorm` to those of public records.

    The records run through the model as it is, layer by layer in one pass without gradients: each
    layer sees what the refreshed layers before it make of them.

    Args:
        model: in the modes in which it is trained.
        public_inputs: at least two public records; a tensor (B, ...), a tuple or a dict of them.

    Raises:
        InputError: there is one value a channel only.
    """
    layers = public_statistics(model)
    for layer in layers:
        layer.refreshing = True
    try:
        with torch.no_grad():
            if isinstance(public_inputs, dict):
                model(**public_inputs)
            elif isinstance(public_inputs, tuple):
                model(*public_inputs)
            else:
                model(public_inputs)
    finally:
        for layer in layers:
            layer.refreshing = False
