"""Normalization layers whose per-sample gradients belong to one record each."""

from dpnorm.norms.frozen import ChannelAffine, FrozenBatchNorm, FrozenStatistics

__all__ = ["ChannelAffine", "FrozenBatchNorm", "FrozenStatistics"]
