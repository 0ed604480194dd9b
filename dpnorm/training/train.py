"""train: a trained copy of a model, with a privacy statement where privacy was asked for."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.data import Dataset, Records
from dpnorm.errors import DpnormError, InputError, unknown_name
from dpnorm.norms import public_statistics
from dpnorm.privacy import Ledger, PrivacyConfig, entropy_generator, seeded_generator
from dpnorm.privacy.engine import ORIGINS
from dpnorm.privacy.optimizer import ReleaseObserver
from dpnorm.tensors import digest_of
from dpnorm.training.checkpoint import read_checkpoint, settled
from dpnorm.training.config import Settings, TrainConfig
from dpnorm.training.loop import Loop, Progress, Steps
from dpnorm.training.plain import PlainSteps
from dpnorm.training.predict import accuracy, predict
from dpnorm.training.private import PrivateSteps
from dpnorm.training.records import random_records
from dpnorm.training.result import TrainedModel
from dpnorm.training.resume import Keeper, resumed_ledger, terms_of
from dpnorm.training.source import AnyRecords, Source
from dpnorm.training.team import Team


@torch.random.fork_rng()
def train(
    model: nn.Module,
    data: Dataset | AnyRecords,
    config: TrainConfig | None = None,
    privacy: PrivacyConfig | None = None,
    *,
    progress: Progress | None = None,
    test: AnyRecords | None = None,
    public: Tensor | None = None,
    ledger: Ledger | None = None,
    weights_origin: str = "unknown",
    statistics_origin: str = "unknown",
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    should_stop: Callable[[], bool] | None = None,
    watch: Callable[[nn.Module, dict[str, float]], None] | None = None,
    observer: ReleaseObserver | None = None,
) -> TrainedModel:
    """Trains a copy of `model` with cross entropy, plainly or under DP-SGD.

    Args:
        model: a classifier, records (N, *shape) to logits (N, K); it is not changed.
        data: a `dpnorm.data.Dataset`, whose `train` is trained on; or the training records alone:
            `dpnorm.data.Records` or any map-style data set of (input, label) pairs, which need not
            fit into memory.
        config: the settings; what it leaves open is chosen for the size of the data.
        privacy: None for plain training; else DP-SGD with Poisson sampling through Opacus.
        progress: called after each epoch with the row that goes into the history.
        test: records to evaluate on; default those of the `Dataset`.
        public: inputs of public records, for layers that take statistics of them; default those of
            the `Dataset`.
        ledger: of earlier releases of the same records, such as `privatize_moments`. The training
            is added to it, and `privacy.epsilon` is the budget of all together.
        weights_origin: what the initial weights came from: "public" or "private" records, "random"
            numbers, or "unknown". No account covers them; the statement says what they are.
        statistics_origin: the same of the initial statistics of normalization layers.
        checkpoint: a file (safetensors) that is written on the way. Where it is there already the
            training goes on from it, under the terms with which it began.
        checkpoint_every: seconds between two checkpoints; 0 for one at each step.
        should_stop: asked after each step; where it says so a checkpoint is written, and the
            training ends with a StoppedError.
        watch: called after each epoch, in every process, with the model, in the state in which it
            would be returned then but for its modes, and the row of the history. It must leave the
            model as it was; what it sees of a private training is covered only as far as it is a
            function of the weights.
        observer: of a private training's releases, for audits (`dpnorm.leakage.audit_training`).

    In a program that has initialized torch.distributed (`torchrun`), all processes train together:
    each takes its part of every batch, through Opacus's DPDDP where privacy is asked for. The first
    one's weights count; its progress is reported, and its checkpoint, in a folder that all share.

    Going on after a kill: with a seed (and in plain training) the same weights come out as if
    nothing had happened. Without one, steps that were taken after the last checkpoint are lost but
    have been released: each is written to a journal beside the checkpoint before it is taken, stays
    in the account, and is not taken again, so that the training keeps its budget and ends so many
    steps earlier.

    Raises:
        InputError: a batch larger than the data, a model without trainable parameters or that
            does not fit the data, one class only, an epsilon that cannot be reached, a checkpoint
            of another training.
        RefusedError: privacy was asked for and `check` refutes the model, or Opacus has no
            per-sample gradient for one of its layers.
        StorageError: a checkpoint cannot be written; the one before is whole.
        StoppedError: `should_stop` said so.

    Formal guarantee (private): the weights of the returned model satisfy `statement`. The losses
    in `history` and the accuracy are computed on private or test records and are not covered.
    """
    given = _parts(data, test, public)
    for origin in (weights_origin, statistics_origin):
        if origin not in ORIGINS:
            raise unknown_name("origin", origin, ORIGINS)
    settings = (config or TrainConfig()).settings(len(Source(given.train)), privacy)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} for the checkpoint: make it")
    saved = read_checkpoint(path) if path is not None and path.exists() else None
    if saved is not None:
        settings = settled(settings, saved, str(path))
        if privacy is not None:
            ledger = resumed_ledger(ledger, saved, str(path))
    trained = copy.deepcopy(model)
    source, shape, classes = _source(trained, given, settings, privacy)
    trained.train()
    team = Team.present(next(trained.parameters()).device)
    torch.manual_seed(settings.seed)
    if saved is None and settings.zero_last_layer:
        zero_last_layer(trained)
    method: Steps
    if privacy is None and observer is not None:
        raise InputError("observer looks at private releases, but privacy is None: give privacy")
    if privacy is None:
        method = PlainSteps(trained, len(source), shape, settings, team, given.public)
    else:
        method = PrivateSteps(
            trained,
            len(source),
            shape,
            settings,
            privacy,
            team=team,
            ledger=ledger,
            public=given.public,
            uncovered=given.uncovered,
            origins=(weights_origin, statistics_origin),
            run=None if saved is None else saved["run"] or None,
            observer=observer,
        )
    about = {"records": len(source), "shape": list(shape), "classes": classes}
    if path is not None:
        about["fingerprint"] = _fingerprint(given.train)
        if public_statistics(trained) and given.public is not None:
            about["public"] = digest_of([], {"x": given.public})
    keeper = Keeper(
        path,
        every=checkpoint_every,
        terms=terms_of(settings, method.terms(), privacy, about, team.world),
        should_stop=should_stop,
    )
    tested = given.test
    evaluate = None if tested is None else lambda: accuracy(trained, tested)
    loop = Loop(trained, method, source, settings, team, evaluate, watch)
    try:
        keeper.begin(loop) if saved is None else keeper.go_on(loop, saved)
        loop.run(keeper, progress)
    finally:
        keeper.close()
    trained.zero_grad(set_to_none=True)
    found = math.nan if evaluate is None else evaluate()
    return TrainedModel(trained.eval(), loop.rows(), found, method.statement())


@dataclass(frozen=True)
class _Parts:
    """What a training was given: records of each kind, and what is known of them."""

    name: str
    train: AnyRecords
    test: AnyRecords | None
    public: Tensor | None
    classes: int | None
    uncovered: tuple[str, ...]


def _parts(data: Any, test: AnyRecords | None, public: Tensor | None) -> _Parts:
    if not isinstance(data, Dataset):
        return _Parts("the data set", data, test, public, None, ())
    if test is None and len(data.test):
        test = data.test
    if public is None:
        public = data.public.x
    return _Parts(data.name, data.train, test, public, data.num_classes, data.uncovered)


def _source(
    model: nn.Module, given: _Parts, settings: Settings, privacy: PrivacyConfig | None
) -> tuple[Source, tuple[int, ...], int]:
    """The training records, the shape of one, and the number of classes; all fits together.

    Raises:
        InputError: it does not.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter: there is nothing to train")
    if privacy is None:
        generator = torch.Generator().manual_seed(settings.seed)
    elif privacy.seed is None:
        generator = entropy_generator()
    else:
        generator = seeded_generator(privacy.seed, "workers")
    shape = Source(given.train).shape
    if given.test is not None and (tested := Source(given.test, what="test").shape) != shape:
        raise InputError(
            f"the test records have the shape {tested}, the training records {shape}: they are to "
            "be alike"
        )
    outputs = _outputs(model, shape)
    classes = outputs if given.classes is None else given.classes
    if outputs < classes:
        raise InputError(
            f"the model has {outputs} outputs, but {given.name} has {classes} classes: build it "
            f"with num_classes={classes}"
        )
    source = Source(
        given.train,
        workers=settings.workers,
        classes=classes,
        generator=generator,
        secret=privacy is not None and privacy.seed is None,
    )
    if settings.batch_size > len(source):
        raise InputError(
            f"batch_size is {settings.batch_size}, but {given.name} has {len(source)} training "
            "records: take a smaller batch"
        )
    alike = isinstance(given.train, Records) and len(given.train.y.unique()) < 2
    if classes < 2 or alike:
        raise InputError(
            f"the training records of {given.name} are of one class, so that there is nothing to "
            "tell apart: needed are two classes"
        )
    return source, shape, classes


def _outputs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """How many outputs a model has for records of a shape."""
    try:
        logits = predict(model, random_records(model, shape, records=2))
    except DpnormError:
        raise
    except Exception as error:
        raise InputError(
            f"the model does not take records of the shape {tuple(shape)}: it raises "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    if logits.dim() != 2 or len(logits) != 2:
        raise InputError(
            f"the model gives {tuple(logits.shape)} for 2 records: a classifier gives logits "
            "(records, classes)"
        )
    return logits.shape[1]


def _fingerprint(records: AnyRecords) -> str | None:
    """Of records in memory; what a map-style data set holds is not known without loading it."""
    return records.fingerprint() if isinstance(records, Records) else None


def zero_last_layer(model: nn.Module) -> None:
    """Sets the last linear layer to zeros, so that a training begins with equal logits.

    Raises:
        InputError: the model has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError("zero_last_layer is set, but the model has no linear layer: leave it out")
    with torch.no_grad():
        for parameter in linear[-1].parameters():
            parameter.zero_()
