"""A pool with one process a core, and the loop over its models that one would write by hand."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from dpnorm.benchmark.speed.sizes import CLASSES, Subject
from dpnorm.data import Dataset, Records
from dpnorm.leakage import draw_membership, train_pool
from dpnorm.leakage.members import member_seed
from dpnorm.parallel import cores
from dpnorm.training import TrainConfig, predict
from dpnorm.training.networks import build_network

_RATE, _MOMENTUM, _SEED, _HELD_OUT = 0.05, 0.9, 0, 32


@dataclass(frozen=True)
class PoolOfModels:
    """Models on random halves of some records, trained in either way.

    Attributes:
        factory: builds one of them.
        data: the records.
        size: how many models.
        epochs: of each training.
        batch: records in a step.
    """

    factory: Callable[[], nn.Module]
    data: Dataset
    size: int
    epochs: int
    batch: int

    @property
    def lesson(self) -> str:
        """What each model is trained for, in words."""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{epochs} of {len(self.data.train) // 2} records"

    def at_once(self) -> None:
        """Trains them with `train_pool`: one process a core, one thread each."""
        config = TrainConfig(
            epochs=self.epochs, batch_size=self.batch, lr=_RATE, momentum=_MOMENTUM, ema=0.0
        )
        train_pool(self.factory, self.data, config, size=self.size, seed=_SEED)

    def one_by_one(self) -> None:
        """Trains one after the other in this process, with as many threads as there are cores."""
        threads = torch.get_num_threads()
        torch.set_num_threads(cores())
        try:
            for m, keep in enumerate(draw_membership(len(self.data.train), self.size, _SEED)):
                self._train(member_seed(_SEED, m), np.flatnonzero(keep).tolist())
        finally:
            torch.set_num_threads(threads)

    def _train(self, seed: int, records: list[int]) -> None:
        torch.manual_seed(seed)
        network = self.factory().train()
        loader = DataLoader(Subset(self.data.train, records), batch_size=self.batch, shuffle=True)
        optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=_MOMENTUM)
        criterion = nn.CrossEntropyLoss()
        for _ in range(self.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                criterion(network(x), y).backward()
                optimizer.step()
        predict(network, self.data.train.x)
        predict(network, self.data.test.x)


def pool_of(subject: Subject, size: int, epochs: int) -> PoolOfModels:
    """A pool of a subject's network, with GroupNorm, on random records."""
    data = random_data(subject)
    factory = functools.partial(build_network, subject.model, "group", data)
    return PoolOfModels(factory, data, size, epochs, subject.pool_batch)


def random_data(subject: Subject) -> Dataset:
    """Records without anything to learn: a step takes the same time on any."""
    generator = torch.Generator().manual_seed(_SEED)

    def part(count: int) -> Records:
        x = torch.randn(count, *subject.shape, generator=generator)
        return Records(x, torch.arange(count) % CLASSES)

    return Dataset(
        name="random",
        train=part(subject.pool_records),
        test=part(_HELD_OUT),
        public=part(0),
        num_classes=CLASSES,
        shape=subject.shape,
        scaling="none",
    )
