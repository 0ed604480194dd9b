"""Normalization layers whose per-sample gradients belong to one record each."""

from dpnorm.norms.frozen import ChannelAffine, FrozenBatchNorm, FrozenStatistics
from dpnorm.norms.rms import RecordRMSNorm
from dpnorm.norms.weight_standardized import WeightStandardizedConv

__all__ = [
    "ChannelAffine",
    "FrozenBatchNorm",
    "FrozenStatistics",
    "RecordRMSNorm",
    "WeightStandardizedConv",
]
