"""Small private trainings for the tests of the engine, and how two states are compared."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.norms import PrivateBatchNorm2d

RECORDS, BATCH = 24, 8


def network(width=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        PrivateBatchNorm2d(width),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(9 * width, 3),
    )


def records(count=RECORDS):
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(count, 1, 5, 5, generator=generator), torch.arange(count) % 3)


def loader(**options):
    return DataLoader(records(), **({"batch_size": BATCH} | options))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


class Training:
    """A private training, its parts made afresh from the same numbers."""

    def __init__(self, build=sgd, *, engine=None, model=None, data=None, **options):
        self.engine = dpnorm.PrivacyEngine(accountant="rdp") if engine is None else engine
        self.model = network() if model is None else model
        made = self.engine.make_private(
            module=self.model,
            optimizer=build(self.model.parameters()),
            data_loader=loader() if data is None else data,
            **{"noise_multiplier": 1.0, "max_grad_norm": 0.5, "seed": 0} | options,
        )
        self.wrapped, self.optimizer, self.data = made[0], made[1], made[-1]
        self.loss = made[2] if len(made) == 4 else F.cross_entropy

    def step(self, x, y):
        self.optimizer.zero_grad()
        self.loss(self.wrapped(x), y).backward()
        self.optimizer.step()

    def run(self, passes=1):
        for _ in range(passes):
            for x, y in self.data:
                self.step(x, y)
        return self


def content(value):
    """A nested state as something that == compares, bit by bit."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), raw.numpy().tobytes()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(item) for item in value]
    return value
