"""DP-SGD through Opacus: Poisson batches, clipped per-sample gradients, accounted noise."""

import math

import torch
import torch.nn.functional as F
from opacus.optimizers import DPOptimizer
from torch import nn

from dpnorm.data import Records
from dpnorm.privacy import (
    PrivacyConfig,
    PrivacyStatement,
    epsilon_spent,
    hooks_for,
    noise_for,
    poisson_batches,
    require_consistent,
)
from dpnorm.training.config import TrainConfig, set_rate
from dpnorm.training.judge import judge, random_records


class PrivateStepper:
    """Private training with exact Poisson sampling at the rate that is accounted.

    The model is judged by `check` on random records before anything private is read; what is not
    proven is refused unless it is allowed, and then the statement says so. Batch size and noise do
    not depend on the batches that are drawn: the sum of clipped gradients is divided by the
    expected batch size, and an empty batch releases noise.
    """

    def __init__(
        self, model: nn.Module, records: Records, config: TrainConfig, privacy: PrivacyConfig
    ) -> None:
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
        sampling, noise = torch.Generator(), torch.Generator(self._device)
        if privacy.seed is None:
            sampling.seed()
            noise.seed()
        else:
            sampling.manual_seed(privacy.seed)
            noise.manual_seed(privacy.seed + 1)
        self._batches = poisson_batches(len(records), self._rate, self._steps, sampling)
        self._model = hooks_for(model, self._report.rows)
        self._optimizer = DPOptimizer(
            config.build_optimizer(self._model),
            noise_multiplier=self._noise,
            max_grad_norm=privacy.clip,
            expected_batch_size=config.batch_size,
            generator=noise,
        )
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
                for parameter in self._optimizer.params:
                    parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
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
        return PrivacyStatement(
            epsilon=epsilon_spent(
                noise_multiplier=self._noise,
                sampling_rate=self._rate,
                steps=self._step,
                delta=privacy.delta,
                accountant=privacy.accountant,
            ),
            delta=privacy.delta,
            noise_multiplier=self._noise,
            clip=privacy.clip,
            sampling_rate=self._rate,
            steps=self._step,
            accountant=f"{privacy.accountant} (opacus)",
            randomness=(
                "torch's generators (Mersenne Twister), seeded by the operating system"
                if privacy.seed is None
                else f"reproducible from seed {privacy.seed}: for benchmarks only, no guarantee "
                "once the seed is known"
            ),
            isolation=self._report.summary(),
        )
