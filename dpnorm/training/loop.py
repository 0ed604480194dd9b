"""The loop over steps that plain and private training share."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dpnorm.training.augment import augmented
from dpnorm.training.average import Average
from dpnorm.training.config import Settings
from dpnorm.training.history import History
from dpnorm.training.plain import PlainSteps
from dpnorm.training.private import PrivateSteps
from dpnorm.training.source import Source
from dpnorm.training.team import Team

Steps = PlainSteps | PrivateSteps
Progress = Callable[[dict[str, float]], None]


class Watcher(Protocol):
    """Who stands beside the loop: keeps checkpoints, and may end it."""

    def before_step(self) -> None:
        """A step is about to be taken."""

    def after_step(self, loop: "Loop") -> None:
        """A step was taken; raises to end the training."""


class Loop:
    """A training, at some step.

    Args:
        model: that is trained, in training mode.
        steps: how it is trained.
        source: of the records.
        settings: of the training.
        team: of the processes.
        evaluate: gives the accuracy of the model; None where there is nothing to test it on.
        watch: looks at the model after each epoch, with the row of the history.

    Attributes:
        step: how many steps were taken.
        lost: how many more the account holds, which a process took that was killed.
        history: one row an epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Steps,
        source: Source,
        settings: Settings,
        team: Team,
        evaluate: Callable[[], float] | None,
        watch: Callable[[nn.Module, dict[str, float]], None] | None = None,
    ) -> None:
        self.model, self.method, self.settings, self.team = model, steps, settings, team
        self._source, self._evaluate, self._watch = source, evaluate, watch
        self.average = Average(model, settings.ema) if settings.ema else None
        self.step = self.lost = 0
        self.history: list[dict[str, float]] = []
        self._loss, self._drawn = 0.0, 0

    @property
    def last(self) -> int:
        """The step after which the training ends: steps that were lost are not taken again."""
        return self.method.steps - self.lost

    def run(self, watcher: Watcher, progress: Progress | None) -> None:
        """Takes the steps that are left."""
        batches = self._source.stream(self.method.positions(self.step))
        while self.step < self.last:
            x, y = next(batches)
            watcher.before_step()
            self._loss += self.method.take(self.step, self._chunks(x, y))
            self._drawn += len(y)
            if self.average is not None:
                self.average.update(self.step)
            self.step += 1
            if self.step % self.method.steps_an_epoch == 0:
                self._end_epoch(progress)
            watcher.after_step(self)
        if self.step and not (self.history and self.history[-1]["step"] == self.step):
            self._end_epoch(progress)
        self.method.finish()
        if self.average is not None:
            self.average.apply()
            self.method.public.refresh()

    def state(self) -> dict[str, Any]:
        """What is needed to go on; every process takes part, the first one's is whole."""
        loss, drawn = self._seen()
        return {
            "step": self.step,
            "lost": self.lost,
            "loss": loss,
            "drawn": drawn,
            "history": [dict(row) for row in self.history],
            "model": dict(self.model.state_dict()),
            "optimizer": self.method.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.values,
            "random": self.method.random_states(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.step, self.lost = state["step"], state["lost"]
        if self.team.is_first:
            self._loss, self._drawn = state["loss"], state["drawn"]
        self.history = list(state["history"])
        self.model.load_state_dict(state["model"])
        self.method.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.method.load_random_states(state["random"])

    def rows(self) -> History:
        """The history as a table."""
        return History(self.history)

    def _chunks(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A logical batch in parts that run at once, as views on the device."""
        if not len(y):
            return []
        device = self.team.device
        parts = -(-len(y) // self.method.physical)  # of one size, within a record
        return [
            (augmented(part.to(device), self.settings.augment, self.settings.views), own.to(device))
            for part, own in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
        ]

    def _seen(self) -> tuple[float, int]:
        """The sum of the losses in this epoch, and of how many records, over all processes."""
        own = torch.tensor([self._loss, float(self._drawn)], dtype=torch.float64)
        loss, drawn = self.team.total(own.to(self.team.device)).tolist()
        return loss, int(drawn)

    def _end_epoch(self, progress: Progress | None) -> None:
        loss, drawn = self._seen()
        epoch = -(-self.step // self.method.steps_an_epoch)
        rate = self.method.optimizer.param_groups[0]["lr"]
        row = {
            "epoch": float(epoch),
            "step": float(self.step),
            "loss": loss / max(drawn, 1),
            "lr": float(rate),
        }
        every, last = self.settings.evaluate_every, self.step == self.last
        if every and (epoch % every == 0 or last):
            if self._evaluate is not None:
                with self._as_it_will_be():
                    row["accuracy"] = self._evaluate()
            epsilon = self.method.epsilon()
            if epsilon is not None:
                row["epsilon"] = epsilon
        self.history.append(row)
        if self._watch is not None:
            with self._as_it_will_be():
                self._watch(self.model, dict(row))
        self._loss, self._drawn = 0.0, 0
        if progress is not None and self.team.is_first:
            progress(row)

    @contextlib.contextmanager
    def _as_it_will_be(self) -> Iterator[None]:
        """The model has the weights that it would be returned with; looking changes no draw."""
        with torch.random.fork_rng():
            if self.average is None:
                yield
                return
            with self.average.applied():
                self.method.public.refresh()
                yield
