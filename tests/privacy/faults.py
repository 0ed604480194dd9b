"""Implementations that are wrong in one place each: what an audit has to find.

Each is a subclass of the real piece; a test puts it in the place of that piece.
"""

import torch

from dpnorm.norms import ReleasedStatistics
from dpnorm.privacy import PrivateOptimizer, StatisticsRelease


class NoiseIsNotUsed(PrivateOptimizer):
    """Samples the noise of the statistics, and publishes them without it."""

    def add_noise(self):
        exact = self.statistics._summed.clone()
        super().add_noise()
        self._noisy_statistics = exact


class NoiseOnEveryRank(PrivateOptimizer):
    """Each process adds the whole noise, so that the sum has it as often as there are processes."""

    def _own_std(self, std):
        rank, self.rank = self.rank, 0
        try:
            return super()._own_std(std)
        finally:
            self.rank = rank


class DividesByTheDrawn(PrivateOptimizer):
    """Divides by the number of records that were drawn instead of the expected number."""

    def clip_and_accumulate(self):
        self.expected_batch_size = max(1, len(self.params[0].grad_sample))
        super().clip_and_accumulate()


class PublishesBeforeTheSum(PrivateOptimizer):
    """Moves the buffers by the process's own sum, to which another process adds the noise."""

    def _reduce(self):
        own, self._noisy_statistics = self._noisy_statistics, None
        super()._reduce()
        self._noisy_statistics = own


class ClipsLayerByLayer(StatisticsRelease):
    """Clips what a record says of each layer to the norm that is accounted for all layers."""

    def accumulate(self, usable):
        vectors = self.waiting().masked_fill(~usable[:, None], 0.0)
        parts = vectors.split([2 * len(layer.running_mean) for layer, _ in self.layers], dim=1)
        clipped = [
            part * (self.clip / (part.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
            for part in parts
        ]
        total = torch.cat(clipped, 1).sum(0)
        self._summed = total if self._summed is None else self._summed + total
        self._pending = []


class AddsTheLastBatchAgain(StatisticsRelease):
    """Keeps the vectors of a batch after its step, and adds them to the next batch's."""

    _last = None

    def take_sum(self):
        own = super().take_sum()
        stale, self._last = self._last, own
        return own if stale is None else own + stale

    def reset(self):
        super().reset()
        self._last = None


class CurrentStatistics(ReleasedStatistics):
    """Normalizes by the mean and variance of the current batch."""

    public = 0  # rows beside it

    def forward(self, x):
        generator = torch.Generator().manual_seed(3)
        public = torch.randn(self.public, x.shape[1], generator=generator)
        rows = torch.cat([x, public])
        mean, var = rows.mean(0), rows.var(0, correction=0)
        return (x - mean) * torch.rsqrt(var + self.eps)


class UnionStatistics(CurrentStatistics):
    """Normalizes by the mean and variance of the current batch together with public rows."""

    public = 3
