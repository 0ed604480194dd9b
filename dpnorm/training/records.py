"""Random records in the place of private ones, where a model is tried out before it trains."""

import torch
from torch import Tensor, nn

from dpnorm.training.augment import augmented
from dpnorm.training.config import Settings


def random_records(
    model: nn.Module, shape: tuple[int, ...], *, seed: int = 0, records: int = 4
) -> Tensor:
    """Random records (records, *shape) in [0, 1) on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.rand((records, *shape), generator=generator).to(device)


def random_batch(
    model: nn.Module, shape: tuple[int, ...], settings: Settings, records: int
) -> tuple[Tensor, Tensor]:
    """Random records as a training sees them, with its views, and labels 0 and 1."""
    x = random_records(model, shape, records=records)
    with torch.random.fork_rng():
        x = augmented(x, settings.augment, settings.views)
    return x, torch.arange(records, device=x.device) % 2
