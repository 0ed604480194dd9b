"""Training without privacy: shuffled batches without replacement."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.gradients.memory import keep_freed_memory
from dpnorm.privacy import seeded_generator
from dpnorm.training.augment import ManyViews, ViewsLoss
from dpnorm.training.config import Settings, set_rate
from dpnorm.training.draws import set_torch_states, torch_states
from dpnorm.training.memory import records_that_fit
from dpnorm.training.public import PublicRecords
from dpnorm.training.records import random_batch
from dpnorm.training.team import Team


class PlainSteps:
    """The steps of an ordinary training.

    Args:
        model: in training mode; it is trained in place.
        records: how many there are.
        shape: of one record.
        settings: of the training.
        team: of the processes; each takes its part of every batch.
        public: inputs of public records, for layers that take statistics of them.
    """

    journaled = False  # whether steps that are taken again must be accounted

    def __init__(
        self,
        model: nn.Module,
        records: int,
        shape: tuple[int, ...],
        settings: Settings,
        team: Team,
        public: Tensor | None = None,
    ) -> None:
        keep_freed_memory()
        self._network = ManyViews(model) if settings.views > 1 else model
        self._records, self._settings, self._team = records, settings, team
        self._loss = ViewsLoss()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = settings.build_optimizer(model)
        self.public = PublicRecords(model, public)
        self.public.refresh()
        team.same([*model.parameters(), *model.buffers()])
        self.steps_an_epoch = len(self._batches(torch.Generator()))
        self.steps = settings.epochs * self.steps_an_epoch
        self.physical = settings.physical_batch_size or records_that_fit(
            self._network, self._loss, *random_batch(model, shape, settings, 2), mode=None
        )
        if team.rank:  # dropout and augmentation of its own, by place in its part of the batch
            own = seeded_generator(settings.seed, "model", rank=team.rank)
            torch.manual_seed(own.initial_seed())

    def terms(self) -> dict[str, Any]:
        """What a training that goes on must have kept."""
        return {"physical_batch_size": self.physical, "grad_sample_mode": "none"}

    def positions(self, start: int) -> Iterator[Tensor]:
        """The batches from this step on; this process's part of each."""
        generator = torch.Generator().manual_seed(self._settings.seed)
        for step in range(self.steps):
            place = step % self.steps_an_epoch
            if place == 0:
                batches = self._batches(generator)
            if step >= start:
                yield batches[place][self._team.rank :: self._team.world]

    def take(self, step: int, chunks: list[tuple[Tensor, Tensor]]) -> float:
        """Takes a step on a batch, in parts that run at once; the sum of its losses."""
        set_rate(self.optimizer, self._settings.rate_at(step, self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        own = torch.tensor(float(sum(len(y) for _, y in chunks)), device=self._team.device)
        records, total = self._team.total(own).item(), 0.0
        for x, y in chunks:
            loss = self._loss(self._network(x), y)
            total += loss.item() * len(y)
            (loss if len(y) == records else loss * (len(y) / records)).backward()
        if self._team.world > 1:
            for p in self._parameters:
                p.grad = self._team.total(torch.zeros_like(p) if p.grad is None else p.grad)
        self.optimizer.step()
        self.public.refresh()
        self._team.same(list(self._network.buffers()))
        return total

    def random_states(self) -> dict[str, Tensor]:
        """Of the generators that are not made anew by `positions`: torch's own."""
        return torch_states(self._team)

    def load_random_states(self, states: dict[str, Tensor]) -> None:
        """Puts back what `random_states` gave."""
        set_torch_states(states, self._team)

    def finish(self) -> None:
        """There is nothing to take off the model."""

    def epsilon(self) -> None:
        """There is none."""

    def statement(self) -> None:
        """There is none."""

    def _batches(self, generator: torch.Generator) -> list[Tensor]:
        """Shuffled batches; a lone last record joins the batch before: BatchNorm needs two."""
        order = torch.randperm(self._records, generator=generator)
        parts = list(order.split(self._settings.batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts
