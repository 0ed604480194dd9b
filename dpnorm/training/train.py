"""train: a trained copy of a model, with a privacy statement where privacy was asked for."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.data import Dataset, Records
from dpnorm.errors import InputError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training.config import TrainConfig, set_rate
from dpnorm.training.predict import accuracy
from dpnorm.training.private import PrivateStepper
from dpnorm.training.result import TrainedModel

Progress = Callable[[dict[str, float]], None]


def train(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig | None = None,
    privacy: PrivacyConfig | None = None,
    *,
    progress: Progress | None = None,
) -> TrainedModel:
    """Trains a copy of `model` on `data.train` with cross entropy and scores it on `data.test`.

    Args:
        model: a classifier, records (N, *shape) to logits (N, K); it is not changed.
        data: the records.
        config: the settings; by default those of `TrainConfig()`.
        privacy: None for plain training; else DP-SGD with Poisson sampling through Opacus.
        progress: called after each epoch with the entry that goes into the history.

    Raises:
        InputError: a batch larger than the data, a model without trainable parameters or that
            does not fit the data, an epsilon that cannot be reached.
        RefusedError: privacy was asked for and `check` refutes the model, or Opacus has no
            per-sample gradient for one of its layers.

    Formal guarantee (private): the weights of the returned model satisfy `statement`. The losses
    in `history` and the accuracy are computed on private or test records and are not covered.
    """
    config = config or TrainConfig()
    _require_fit(model, data, config)
    trained = copy.deepcopy(model).train()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        stepper: PlainStepper | PrivateStepper
        if privacy is None:
            stepper = PlainStepper(trained, data.train, config)
        else:
            stepper = PrivateStepper(trained, data.train, config, privacy, data.public)
        history = []
        for epoch in range(1, stepper.epochs + 1):
            entry = {"epoch": float(epoch), **stepper.run_epoch()}
            history.append(entry)
            if progress is not None:
                progress(entry)
    trained = stepper.finish()
    trained.zero_grad(set_to_none=True)
    return TrainedModel(
        trained.eval(), tuple(history), accuracy(trained, data.test), stepper.statement()
    )


class PlainStepper:
    """Ordinary training: shuffled batches without replacement."""

    def __init__(self, model: nn.Module, records: Records, config: TrainConfig) -> None:
        self.epochs = config.epochs
        self._model = model
        self._records = records
        self._config = config
        self._steps = config.epochs * len(self._batches(torch.Generator()))
        self._optimizer = config.build_optimizer(model)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._step = 0

    def run_epoch(self) -> dict[str, float]:
        """One pass over the records; the mean loss."""
        total, device = 0.0, next(self._model.parameters()).device
        for index in self._batches(self._generator):
            set_rate(self._optimizer, self._config.rate_at(self._step, self._steps))
            x, y = self._records.x[index].to(device), self._records.y[index].to(device)
            self._optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(self._model(x), y)
            loss.backward()
            self._optimizer.step()
            self._step += 1
            total += loss.item() * len(index)
        return {"step": float(self._step), "loss": total / len(self._records)}

    def finish(self) -> nn.Module:
        return self._model

    def statement(self) -> None:
        return None

    def _batches(self, generator: torch.Generator) -> list[Tensor]:
        """Shuffled batches; a lone last record joins the batch before: BatchNorm needs two."""
        order = torch.randperm(len(self._records), generator=generator)
        parts = list(order.split(self._config.batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts


def _require_fit(model: nn.Module, data: Dataset, config: TrainConfig) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: there is nothing to train")
    if config.batch_size > len(data.train):
        raise InputError(
            f"batch_size is {config.batch_size}, but {data.name} has {len(data.train)} training "
            "records: take a smaller batch"
        )
