"""DP-SGD through Opacus: Poisson batches, clipped per-sample gradients, accounted noise."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.data import Records
from dpnorm.errors import InputError
from dpnorm.norms import public_statistics, refresh_statistics, released_statistics
from dpnorm.privacy import (
    Ledger,
    PrivacyConfig,
    PrivacyStatement,
    PrivateOptimizer,
    StatisticsRelease,
    entropy_generator,
    hooks_for,
    noise_for,
    origin_of,
    poisson_batches,
    randomness,
    require_consistent,
    seeded_generator,
    statement_of,
)
from dpnorm.training.config import TrainConfig, set_rate
from dpnorm.training.judge import judge, random_records

_RUN = "training"


class PrivateStepper:
    """Private training with exact Poisson sampling at the rate that is accounted.

    The model is judged by `check` on random records before anything private is read; what is not
    proven is refused unless it is allowed, and then the statement says so. Batch size and noise do
    not depend on the batches that are drawn: the sum of clipped gradients is divided by the
    expected batch size, and an empty batch releases noise.
    """

    def __init__(
        self,
        model: nn.Module,
        records: Records,
        config: TrainConfig,
        privacy: PrivacyConfig,
        public: Records | None = None,
    ) -> None:
        self._public = _public_inputs(model, public)
        self._plain = model
        self._refresh()
        shape = tuple(records.x.shape[1:])
        self._report = judge(model, shape, allow=privacy.allow)
        require_consistent(model, self._report.rows, random_records(model, shape), exact=False)
        self._records = records
        self._privacy = privacy
        self._config = config
        self._rate = privacy.sampling_rate or config.batch_size / len(records)
        self._steps = privacy.steps or config.epochs * math.ceil(1 / self._rate)
        self._steps_an_epoch = math.ceil(1 / self._rate)
        self.epochs = math.ceil(self._steps / self._steps_an_epoch)
        self._noise = privacy.noise_multiplier or noise_for(
            epsilon=privacy.epsilon or math.nan,
            sampling_rate=self._rate,
            steps=self._steps,
            delta=privacy.delta,
            accountant=privacy.accountant,
        )
        self._device = next(model.parameters()).device
        if privacy.seed is None:
            sampling, noise = entropy_generator(), entropy_generator(self._device)
        else:
            sampling = seeded_generator(privacy.seed, "sampling")
            noise = seeded_generator(privacy.seed, "noise", device=self._device)
        self._batches = poisson_batches(len(records), self._rate, self._steps, sampling)
        self._statistics = None
        if released_statistics(model):
            self._statistics = StatisticsRelease(model, self._report.rows)
        self._model = hooks_for(model, self._report.rows, statistics=self._statistics)
        self._optimizer = PrivateOptimizer(
            config.build_optimizer(self._model),
            noise_multiplier=self._noise,
            max_grad_norm=privacy.clip,
            expected_batch_size=config.batch_size,
            generator=noise,
            statistics=self._statistics,
            statistics_noise_ratio=privacy.statistics_noise_ratio,
            after_step=self._refresh,
        )
        self._ledger = Ledger()
        self._step = 0

    def run_epoch(self) -> dict[str, float]:
        """About one pass over the records; the mean loss of the records that were drawn."""
        total, drawn = 0.0, 0
        for _ in range(min(self._steps_an_epoch, self._steps - self._step)):
            index = next(self._batches)
            set_rate(self._optimizer, self._config.rate_at(self._step, self._steps))
            self._optimizer.zero_grad(set_to_none=True)
            if len(index):
                x = self._records.x[index].to(self._device)
                y = self._records.y[index].to(self._device)
                loss = F.cross_entropy(self._model(x), y)
                loss.backward()
                total += loss.item() * len(index)
                drawn += len(index)
            else:
                self._optimizer.take_empty_batch()
            self._ledger.book(self._noise, self._rate, self._optimizer.releases(), run=_RUN)
            self._optimizer.step()
            self._step += 1
        return {"step": float(self._step), "loss": total / max(drawn, 1)}

    def finish(self) -> nn.Module:
        """The plain model again: Opacus's hooks and attributes are taken off."""
        model = self._model._module
        self._model.cleanup()
        for parameter in model.parameters():
            parameter.__dict__.pop("summed_grad", None)
        return model

    def statement(self) -> PrivacyStatement:
        """The account of the steps that were taken."""
        privacy = self._privacy
        return statement_of(
            self._ledger,
            _RUN,
            delta=privacy.delta,
            accountant=privacy.accountant,
            clip=privacy.clip,
            releases=self._optimizer.releases(),
            randomness=randomness(privacy.seed),
            isolation=self._report.summary(),
            statistics_origin=origin_of(self._plain, "unknown"),
        )

    def _refresh(self) -> None:
        """Public statistics follow the weights."""
        if self._public is not None:
            refresh_statistics(self._plain, self._public)


def _public_inputs(model: nn.Module, public: Records | None) -> Tensor | None:
    if not public_statistics(model):
        return None
    if public is None or not len(public):
        raise InputError(
            "the model has layers that take statistics of public records, and the data set has no "
            "public part: take another variant, or a data set with one"
        )
    return public.x.to(next(model.parameters()).device)
