"""Batch normalization with fixed statistics: a per-channel affine map, one for all records."""

from dpnorm.norms.channels import ChannelNorm


class FrozenBatchNorm(ChannelNorm):
    """BatchNorm with constant statistics and a trainable scale and shift.

        y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

    This is BatchNorm in evaluation mode, in training mode too: with the statistics of a trained
    BatchNorm it computes exactly that layer's function.

    Formal guarantee: the output for a record, and the gradient of any sum of per-record losses
    with respect to `weight` and `bias`, are functions of that record alone, as long as the
    statistics are public. Statistics that came from private data are released as they are, and no
    epsilon of a later training covers them.

    Args: those of `ChannelNorm`. The statistics start as 0 and 1, those of an untrained BatchNorm;
    `with_statistics` takes others, and `load_state_dict` the state of a BatchNorm.

    Shapes: (N, C, ...) -> (N, C, ...).

    Source: Ioffe and Szegedy, arXiv 1502.03167, equation of the inference network.
    """


class FrozenBatchNorm1d(FrozenBatchNorm):
    """`FrozenBatchNorm` on (N, C) or (N, C, L)."""

    dimensions = (2, 3)


class FrozenBatchNorm2d(FrozenBatchNorm):
    """`FrozenBatchNorm` on (N, C, H, W)."""

    dimensions = (4,)


class FrozenBatchNorm3d(FrozenBatchNorm):
    """`FrozenBatchNorm` on (N, C, D, H, W)."""

    dimensions = (5,)
