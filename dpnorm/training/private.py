"""DP-SGD through Opacus: Poisson batches, clipped per-sample gradients, accounted noise."""

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from torch import Tensor, nn

from dpnorm.privacy import (
    Ledger,
    PoissonSampler,
    PrivacyConfig,
    PrivacyStatement,
    draws_beside_torch,
    entropy_generator,
    noise_for,
    origin_of,
    randomness,
    require_consistent,
    seeded_generator,
    statement_of,
)
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.judging import require_expanded_weights
from dpnorm.privacy.optimizer import ReleaseObserver
from dpnorm.privacy.statement import AUGMENTATION, DRAWS
from dpnorm.training.augment import ManyViews, ViewsLoss
from dpnorm.training.clipped import ClippedSteps
from dpnorm.training.config import Settings, set_rate
from dpnorm.training.draws import set_torch_states, torch_states
from dpnorm.training.judge import judge
from dpnorm.training.memory import records_that_fit
from dpnorm.training.public import PublicRecords
from dpnorm.training.records import random_batch
from dpnorm.training.speed import fastest_mode
from dpnorm.training.team import Team

EXAMPLE = 4  # random records on which a network is tried out


class PrivateSteps:
    """The steps of a private training, with exact Poisson sampling at the rate that is accounted.

    The network is judged by `check` on random records before anything private is read; what is not
    proven is refused unless it is allowed, and then the statement says so. Batch size and noise do
    not depend on the batches that are drawn: the sum of clipped gradients is divided by the
    expected batch size, and an empty batch releases noise.

    Args:
        model: in training mode; it is trained in place.
        records: how many there are.
        shape: of one record.
        settings: of the training.
        privacy: what it is to guarantee.
        team: of the processes; each draws from its own part of the records.
        ledger: of earlier releases of the same records; this training is added to it.
        public: inputs of public records, for layers that take statistics of them.
        in_memory: whether the records are tensors, which no random draw of their own changes.
        uncovered: what was computed from the private records without noise before.
        origins: of the initial weights and statistics.
        run: its name in the ledger, where a training goes on; default the first that is free.
        observer: audits the releases from inside.
    """

    def __init__(
        self,
        model: nn.Module,
        records: int,
        shape: tuple[int, ...],
        settings: Settings,
        privacy: PrivacyConfig,
        *,
        team: Team | None = None,
        ledger: Ledger | None = None,
        public: Tensor | None = None,
        in_memory: bool = True,
        uncovered: Sequence[str] = (),
        origins: tuple[str, str] = ("unknown", "unknown"),
        run: str | None = None,
        observer: ReleaseObserver | None = None,
    ) -> None:
        team = Team() if team is None else team
        self._team, self._model, self._settings, self._privacy = team, model, settings, privacy
        self._records, self._uncovered, self._origins = records, uncovered, origins
        self._in_memory = in_memory
        self.ledger = Ledger() if ledger is None else ledger
        self.public = PublicRecords(model, public)
        self.public.refresh()
        self.rate = privacy.sampling_rate or settings.batch_size / records
        others = Ledger([event for event in self.ledger.events if event.run != run])
        self.steps_an_epoch = math.ceil(1 / self.rate)
        self.steps = privacy.steps or settings.epochs * self.steps_an_epoch
        self.noise = privacy.noise_multiplier or noise_for(
            epsilon=privacy.epsilon or math.nan,
            sampling_rate=self.rate,
            steps=self.steps,
            delta=privacy.delta,
            accountant=privacy.accountant,
            before=tuple(others.history()),
        )
        self.run = self.ledger.take_name(kind="training") if run is None else run
        self.journaled = privacy.seed is None
        network: nn.Module = ManyViews(model) if settings.views > 1 else model
        if team.world > 1:
            network = DifferentiallyPrivateDistributedDataParallel(network)
            team.same(list(model.buffers()))
        self._report = judge(network, shape, settings, allow=privacy.allow)
        x, _ = random_batch(model, shape, settings, EXAMPLE)
        self._draws_beside = draws_beside_torch(network, x)
        self.mode = self._mode(network, shape, settings.grad_sample_mode)
        self.physical = settings.physical_batch_size or self._fitting(network, shape, self.mode)
        self._draw_from(privacy.seed)
        self.optimizer = settings.build_optimizer(model)
        self._clipped = ClippedSteps(
            network,
            self._report.rows,
            self.mode,
            self.optimizer,
            noise=self.noise,
            clip=privacy.clip,
            ratio=privacy.statistics_noise_ratio,
            expected=settings.batch_size,
            generator=self._noise,
            distributed=team.world > 1,
            after_step=self.public.refresh,
        )
        self._clipped.optimizer.observer = observer

    def terms(self) -> dict[str, Any]:
        """What a training that goes on must have kept."""
        return {
            "noise_multiplier": self.noise,
            "sampling_rate": self.rate,
            "steps": self.steps,
            "physical_batch_size": self.physical,
            "grad_sample_mode": self.mode,
        }

    def positions(self, start: int) -> Iterator[list[int]]:
        """The batches from this step on; this process's part of each."""
        drawn = iter(
            PoissonSampler(
                self._records,
                self.rate,
                self.steps - start,
                self._sampling,
                rank=self._team.rank,
                world=self._team.world,
            )
        )
        self._after_draw.clear()
        for index in drawn:
            self._after_draw.append(self._sampling.get_state())
            yield index

    def take(self, step: int, chunks: list[tuple[Tensor, Tensor]]) -> float:
        """Takes a step on a batch, in parts that run at once; the sum of its losses."""
        self._drawn_state = self._after_draw.popleft()
        set_rate(self.optimizer, self._settings.rate_at(step, self.steps))
        self.book(1)
        return self._clipped.take(chunks)

    def book(self, steps: int) -> None:
        """Adds steps to the account: before they are taken, or where they were lost."""
        if steps:
            releases = self._clipped.releases()
            self.ledger.book(self.noise, self.rate, releases, run=self.run, steps=steps)

    def random_states(self) -> dict[str, Tensor]:
        """Of the generators; empty where they come from the operating system.

        Such noise is drawn once. Kept in a file it could be taken away.
        """
        if self.journaled:
            return {}
        return {
            **torch_states(self._team),
            "sampling": self._team.gathered(self._drawn_state),
            "noise": self._team.gathered(self._noise.get_state()),
        }

    def load_random_states(self, states: dict[str, Tensor]) -> None:
        """Puts back what `random_states` gave."""
        if self.journaled:
            return
        set_torch_states(states, self._team)
        own = {name: states[name][self._team.rank].clone() for name in ("sampling", "noise")}
        self._sampling.set_state(own["sampling"])
        self._noise.set_state(own["noise"])
        self._drawn_state = own["sampling"]

    def finish(self) -> None:
        """The plain model again: hooks and attributes are taken off."""
        self._clipped.finish()

    def epsilon(self) -> float:
        """Spent so far, by this run together with all that the ledger holds."""
        privacy = self._privacy
        return _epsilon(tuple(self.ledger.history()), privacy.delta, privacy.accountant)

    def statement(self) -> PrivacyStatement:
        """The account of the steps that were taken."""
        privacy = self._privacy
        weights, statistics = self._origins
        return statement_of(
            self.ledger,
            self.run,
            delta=privacy.delta,
            accountant=privacy.accountant,
            clip=privacy.clip,
            releases=self._clipped.releases(),
            randomness=randomness(privacy.seed),
            isolation=self._report.summary(),
            weights_origin=weights,
            statistics_origin=origin_of(self._model, statistics),
            draws=self._known_draws(),
            not_covered=self._uncovered,
        )

    def _known_draws(self) -> str | None:
        """What a statement says of other random numbers: torch's own come from where noise does."""
        if self._draws_beside:
            return DRAWS
        return None if self.journaled and self._in_memory else AUGMENTATION

    def _mode(self, network: nn.Module, shape: tuple[int, ...], mode: str) -> str:
        """The mode of gradient sampling, tried out on random records."""

        def draw(records: int) -> tuple[Tensor, Tensor]:
            return random_batch(self._model, shape, self._settings, records)

        def require(mode: str) -> None:
            x, _ = draw(EXAMPLE)
            if mode == "ew":
                require_expanded_weights(network, self._report, x)
            else:
                require_consistent(network, self._report.rows, x, mode=mode)

        if mode != "auto":
            require(mode)
            return mode
        chosen = fastest_mode(
            network,
            self._report,
            draw,
            require,
            lambda name: self._settings.physical_batch_size or self._fitting(network, shape, name),
            most=self._settings.batch_size,
        )
        return self._team.first_text(chosen)

    def _fitting(self, network: nn.Module, shape: tuple[int, ...], mode: str) -> int:
        x, y = random_batch(self._model, shape, self._settings, EXAMPLE)
        return records_that_fit(network, ViewsLoss(), x, y, mode=mode)

    def _draw_from(self, seed: int | None) -> None:
        """Sets up the generators of sampling and noise, and torch's own, which the model draws by.

        What a model draws by place in the batch, such as dropout, is as secret as the noise.
        """
        device, rank = self._team.device, self._team.rank
        if seed is None:
            self._sampling, self._noise = entropy_generator(), entropy_generator(device)
            torch.seed()  # of all devices
            torch.set_rng_state(entropy_generator().get_state())
        else:
            self._sampling = seeded_generator(seed, "sampling", rank=rank)
            self._noise = seeded_generator(seed, "noise", device=device)
            torch.manual_seed(seeded_generator(seed, "model", rank=rank).initial_seed())
        self._drawn_state = self._sampling.get_state()
        self._after_draw: deque[Tensor] = deque()


@functools.cache  # trainings of one kind pass through the same numbers
def _epsilon(history: tuple[tuple[float, float, int], ...], delta: float, accountant: str) -> float:
    return epsilon_of(history, delta=delta, accountant=accountant)
