"""Small records and networks on which a training can be taken apart."""

import torch
from torch import nn

from dpnorm.data import Records
from dpnorm.norms import PrivateBatchNorm2d, PublicBatchNorm2d
from dpnorm.training import TrainConfig


def images(count: int = 24, *, classes: int = 3, size: int = 6, seed: int = 1) -> Records:
    """Random images; the class shows in their mean."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.randn(count, 1, size, size, generator=generator) + y.view(-1, 1, 1, 1)
    return Records(x, y)


def network(norm: str = "group", *, dropout: float = 0.0, classes: int = 3) -> nn.Sequential:
    """Of 6 x 6 images; the same weights for the same norm at each call."""
    norms = {
        "group": lambda: nn.GroupNorm(2, 4),
        "batch": lambda: nn.BatchNorm2d(4),
        "private": lambda: PrivateBatchNorm2d(4),
        "public": lambda: PublicBatchNorm2d(4),
        "none": nn.Identity,
    }
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            norms[norm](),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(64, classes),
        )


BUSY = TrainConfig(  # six steps with everything that draws random numbers or keeps a state
    epochs=2,
    batch_size=8,
    physical_batch_size=3,
    lr=0.2,
    momentum=0.9,
    ema=0.8,
    weight_decay=0.01,
    schedule="cosine",
    warmup=0.2,
    views=2,
    augment="shift",
    seed=3,
)
PLAIN = TrainConfig(epochs=2, batch_size=8, lr=0.2, momentum=0.0, ema=0.0)


def with_settings(config: TrainConfig, **settings) -> TrainConfig:
    """The same with some settings changed."""
    return TrainConfig(**(config.model_dump() | settings))


def flat(model: nn.Module) -> torch.Tensor:
    """All parameters and buffers as one vector."""
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


def stop_after(steps: int):
    """A `should_stop` that says so after so many steps of one process."""
    count = iter(range(1, 10**9))
    return lambda: next(count) == steps
