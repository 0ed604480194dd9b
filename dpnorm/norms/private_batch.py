"""Batch normalization with private statistics: noisy ones, released at earlier steps."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.norms.channels import ChannelNorm, FixedStatistics

DRIFT = 0.03  # how far true statistics wander in a step, in standard deviations of a channel
_LARGEST_FACTOR = 4.0  # by which one release may change a variance


class ReleasedStatistics(FixedStatistics):
    """The statistics of a `PrivateBatchNorm`: constants until a noisy release moves them.

    A forward pass writes nothing. What a record contributes to the next release is
    `of_rows`, and whoever releases (dpnorm.PrivacyEngine) clips it, adds noise and calls `release`.

    Args:
        mean: (C,) the mean to start from.
        var: (C,) the variance to start from.
        eps: added to the variance.
        momentum: the weight of a release; None takes that of a Kalman filter, which knows how
            large the noise is: near 1 at first, and small where the noise is large.
        uncertainty: variance of the error of the starting mean, in variances of the channel.

    Shapes: buffers `running_mean` and `running_var` are (C,), `uncertainty` is ().
    """

    uncertainty: Tensor

    def __init__(
        self,
        mean: Tensor,
        var: Tensor,
        eps: float,
        *,
        momentum: float | None = None,
        uncertainty: float = 1.0,
    ) -> None:
        super().__init__(mean, var, eps)
        self.momentum = momentum
        self.register_buffer(
            "uncertainty", torch.tensor(uncertainty, dtype=torch.float32, device=mean.device)
        )

    def of_rows(self, normalized: Tensor) -> Tensor:
        """What each row of this module's output says of the statistics.

        Args:
            normalized: (N, C, ...), this module's output.

        Returns:
            (N, 2C) in float32 or wider: each channel's mean, which is 0 where the running mean is
            right, and its mean square less 1, which is 0 where the variance is right too.
        """
        wide = normalized.detach()
        wide = wide.float() if wide.dtype in (torch.float16, torch.bfloat16) else wide
        if wide.dim() > 2:
            wide = wide.flatten(2)
            mean, size = wide.mean(2), wide.shape[2]
            square = torch.linalg.vector_norm(wide, dim=2).square() / size
        else:
            mean, square = wide, wide.square()
        return torch.cat([mean, square - 1], 1)

    @torch.no_grad()
    def release(self, moments: Tensor, noise: float, records: float) -> None:
        """Moves the statistics by a noisy average of what records said.

        This is post-processing: it reads nothing but what was released.

        Args:
            moments: (2C,) a noisy average of rows of `of_rows`.
            noise: the standard deviation of its noise.
            records: how many it is the average of, expected.
        """
        mean, square = moments.to(self.uncertainty).chunk(2)
        variance = noise**2
        gain = self._gain(variance + 1 / max(records, 1.0))
        # the squared mean is subtracted as far as it is more than noise
        change = square - (mean.square() - variance).clamp_min(0)
        factor = (1 + gain * change).clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
        scale = (self.running_var + self.eps).to(mean.dtype)
        self.running_mean += (gain * mean * scale.sqrt()).to(self.running_mean)
        self.running_var.copy_((scale * factor - self.eps).clamp_min(0))

    def _gain(self, variance: float) -> Tensor | float:
        """The weight of a release whose error has this variance."""
        before = self.uncertainty + DRIFT**2
        gain = before / (before + variance) if self.momentum is None else self.momentum
        self.uncertainty.copy_((1 - gain) ** 2 * before + gain**2 * variance)
        return gain


class PrivateBatchNorm(ChannelNorm):
    """BatchNorm with statistics that were released under differential privacy at earlier steps.

        y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

    (with `record_share`, as `ChannelNorm` says). Within a step the statistics are constants, in
    training and in evaluation, so that the gradient of a record is its own. Every record says by
    how much it finds the statistics off (the mean and the mean square of its normalized
    activations, channel by channel). `dpnorm.PrivacyEngine` clips what a record says of all layers
    as one vector, adds up the records of the batch, adds noise, and moves the statistics; batch,
    noise and account are those of the gradients, see `dpnorm.privacy.joint`. Without an engine the
    statistics stay as they are.

    Formal guarantee: the output for a record, the gradient of any sum of per-record losses and
    what a record says of the statistics are functions of that record and of released state. The
    engine's statement covers the releases; it does not cover what the statistics started from.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: the weight of a release, in (0, 1]; None chooses it by the size of the noise.
        affine: whether there is a trainable scale and shift.
        uncertainty: variance of the error of the starting mean, in variances of the channel: 1 for
            statistics that say nothing yet, less for a trained network's. Only for momentum None.
        record_share: see `ChannelNorm`; 0.5 where a deep network is trained from the beginning.
        device: of the layer.
        dtype: of the layer.

    Shapes: (N, C, ...) -> (N, C, ...).

    Source: the joint release of gradients and statistics is ours; noisy statistics of clipped
    records are those of Tramer and Boneh, arXiv 2011.11660, who release them once, of the inputs.
    """

    statistics: ReleasedStatistics

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = None,
        affine: bool = True,
        *,
        uncertainty: float = 1.0,
        record_share: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if momentum is not None and not 0 < momentum <= 1:
            raise InputError(f"momentum is {momentum}: it is to be in (0, 1], or None")
        if not (uncertainty >= 0 and math.isfinite(uncertainty)):
            raise InputError(f"uncertainty is {uncertainty}: it is to be finite and at least 0")
        super().__init__(
            num_features,
            eps,
            affine=affine,
            record_share=record_share,
            device=device,
            dtype=dtype,
        )
        self.statistics.momentum = momentum
        self.statistics.uncertainty.fill_(uncertainty)

    def _new_statistics(self, mean: Tensor, var: Tensor, eps: float) -> ReleasedStatistics:
        return ReleasedStatistics(mean, var, eps)


class PrivateBatchNorm1d(PrivateBatchNorm):
    """`PrivateBatchNorm` on (N, C) or (N, C, L)."""

    dimensions = (2, 3)


class PrivateBatchNorm2d(PrivateBatchNorm):
    """`PrivateBatchNorm` on (N, C, H, W)."""

    dimensions = (4,)


class PrivateBatchNorm3d(PrivateBatchNorm):
    """`PrivateBatchNorm` on (N, C, D, H, W)."""

    dimensions = (5,)


def released_statistics(model: nn.Module) -> dict[str, ReleasedStatistics]:
    """The modules of a model whose statistics are released with its gradients, by path."""
    return {p: m for p, m in model.named_modules() if isinstance(m, ReleasedStatistics)}
