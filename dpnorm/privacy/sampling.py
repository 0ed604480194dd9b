"""Poisson sampling of batches."""

from collections.abc import Iterator

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor


def poisson_batches(
    records: int, sampling_rate: float, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields `steps` index tensors; each record is in each of them independently.

    The rate is exactly `sampling_rate`, the number that is accounted; a batch may be empty.
    """
    sampler = UniformWithReplacementSampler(
        num_samples=records, sample_rate=sampling_rate, generator=generator, steps=steps
    )
    for batch in sampler:
        yield torch.tensor(batch, dtype=torch.long)
