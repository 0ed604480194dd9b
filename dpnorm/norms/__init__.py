"""Normalization layers whose per-sample gradients belong to one record each."""

from dpnorm.norms.channels import ChannelAffine, ChannelNorm, FixedStatistics
from dpnorm.norms.evonorm import EvoNormS0
from dpnorm.norms.frozen import (
    FrozenBatchNorm,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    FrozenBatchNorm3d,
)
from dpnorm.norms.private_batch import (
    PrivateBatchNorm,
    PrivateBatchNorm1d,
    PrivateBatchNorm2d,
    PrivateBatchNorm3d,
    ReleasedStatistics,
    released_statistics,
)
from dpnorm.norms.public_batch import (
    PublicBatchNorm,
    PublicBatchNorm1d,
    PublicBatchNorm2d,
    PublicBatchNorm3d,
    public_statistics,
    refresh_statistics,
)
from dpnorm.norms.rms import RecordRMSNorm
from dpnorm.norms.scale import ScaleNorm
from dpnorm.norms.weight_standardized import WeightStandardizedConv

__all__ = [
    "ChannelAffine",
    "ChannelNorm",
    "EvoNormS0",
    "FixedStatistics",
    "FrozenBatchNorm",
    "FrozenBatchNorm1d",
    "FrozenBatchNorm2d",
    "FrozenBatchNorm3d",
    "PrivateBatchNorm",
    "PrivateBatchNorm1d",
    "PrivateBatchNorm2d",
    "PrivateBatchNorm3d",
    "PublicBatchNorm",
    "PublicBatchNorm1d",
    "PublicBatchNorm2d",
    "PublicBatchNorm3d",
    "RecordRMSNorm",
    "ReleasedStatistics",
    "ScaleNorm",
    "WeightStandardizedConv",
    "public_statistics",
    "refresh_statistics",
    "released_statistics",
]
