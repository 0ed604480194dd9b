"""Training one member of a pool, and a pool of them."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.membership import draw_membership
from dpnorm.leakage.pool import Pool
from dpnorm.parallel import run_jobs

if TYPE_CHECKING:
    from torch import nn

    from dpnorm.data import Dataset
    from dpnorm.privacy import PrivacyConfig
    from dpnorm.training import TrainConfig


@dataclass(frozen=True, eq=False)
class Member:
    """One trained model of a pool, seen from outside.

    Attributes:
        keep: bool[N], the training records it saw.
        logits: float32[N, A, K] of all training records, seen or not, in eval mode.
        accuracy: on the test set, between 0 and 1.
        statement: the privacy statement as a dict, or None for a model trained without privacy.
        seconds: wall-clock time of building, training and evaluating it.
        history: one dict an epoch, as the training wrote it.
    """

    keep: NDArray[np.bool_]
    logits: NDArray[np.float32]
    accuracy: float
    statement: dict[str, Any] | None
    seconds: float
    history: tuple[dict[str, Any], ...]


def train_member(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    privacy: "PrivacyConfig | None",
    *,
    keep: NDArray[np.bool_],
    seed: int,
) -> Member:
    """Trains `factory()` on the training records in `keep` and looks at all of them.

    The signals are logits in eval mode (A = 1 view): in train mode normalization layers and
    dropout would mix the records and blur them.

    A private member whose `privacy` leaves them open gets the sampling rate
    q = batch_size / (N / 2) and T = epochs * ceil((N / 2) / batch_size) steps. Both are constants
    of the pool, from the *expected* number of members: all members share one noise calibration,
    and epsilon does not depend on how many records the coins gave to this one.

    Args:
        factory: builds the model; called under a torch RNG seeded with `seed`. The caller's RNG
            is left as it was.
        data: N training records, and test records for the accuracy.
        config: how to train; its seed is replaced by `seed`.
        privacy: None to train without. Its seed stays None (noise from OS entropy) or is derived
            from itself and `seed`.
        keep: bool[N], the training records to use, at least one.
        seed: of the weights at the start and the order of the records.

    Raises:
        InputError: `keep` does not fit the data or is empty, or the batch is larger than half of
            the records in a private training.
    """
    import torch

    from dpnorm.training import predict, train

    started = time.perf_counter()
    records = len(data.train)
    keep = np.asarray(keep)
    if keep.dtype != np.bool_ or keep.shape != (records,):
        raise InputError(
            f"keep is {keep.dtype}{list(keep.shape)}; the data need bool[{records}], one entry "
            "a training record"
        )
    if not keep.any():
        raise InputError("keep selects no record; a member needs at least 1 to train on")
    part = dataclasses.replace(data, train=data.train.select(torch.from_numpy(keep.copy())))
    config = pool_config(config, privacy, records)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trained = train(
            factory(),
            part,
            config.model_copy(update={"seed": seed}),
            None if privacy is None else pool_privacy(privacy, config, records, seed),
        )
        logits = predict(trained.model, data.train.x)
    return Member(
        keep=keep,
        logits=logits.detach().cpu().numpy().astype(np.float32)[:, None, :],
        accuracy=float(trained.accuracy),
        statement=None if trained.statement is None else trained.statement.to_dict(),
        seconds=time.perf_counter() - started,
        history=tuple(trained.history),
    )


def train_pool(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    *,
    privacy: "PrivacyConfig | None" = None,
    size: int = 8,
    seed: int = 0,
    workers: int | None = None,
) -> Pool:
    """Trains `size` models on random halves of the training records, one process a core.

    The same seed gives the same pool, whatever the number of workers (a private pool too, if
    `privacy.seed` is set).

    Args:
        factory: a module-level function or a `functools.partial` of one: it must be picklable.
        data: the records; `data.train.outlier` goes into the pool.
        config: how to train; each member gets a seed of its own, derived from `seed`.
        privacy: None to train without.
        size: number of models M, at least 2.
        seed: of the membership and of all members.
        workers: number of processes, default one a core.

    Raises:
        InputError: a batch larger than the smallest member's records, before anything is trained;
            and as `draw_membership` and `train_member`.
    """
    keep = draw_membership(len(data.train), size, seed)
    config = pool_config(config, privacy, len(data.train))
    fewest = int(keep.sum(axis=1).min())
    assert config.batch_size is not None
    if config.batch_size > fewest:
        raise InputError(
            f"the batch size is {config.batch_size}; the members of this pool train on half of "
            f"{len(data.train)} records, the smallest on {fewest}: take a smaller batch"
        )
    work = functools.partial(_train_job, factory, data, config, privacy)
    jobs = [(keep[m], member_seed(seed, m)) for m in range(size)]
    members = dict(run_jobs(work, jobs, workers=workers))
    return Pool.from_members(
        [members[m] for m in range(size)],
        labels=data.train.y.cpu().numpy(),
        outlier=data.train.outlier.cpu().numpy(),
    )


def member_seed(seed: int, index: int) -> int:
    """The seed of member `index` in the pool of `seed`: the same in pools of any size."""
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1)[0])


def pool_config(
    config: "TrainConfig", privacy: "PrivacyConfig | None", records: int
) -> "TrainConfig":
    """What the config leaves open, chosen for the expected half of the records: alike for all.

    Members are not evaluated along the way unless the config asks for it.
    """
    every = config.evaluate_every if "evaluate_every" in config.model_fields_set else 0
    pinned = config.pinned(records // 2, privacy)
    return pinned.model_copy(update={"evaluate_every": every})


def pool_privacy(
    privacy: "PrivacyConfig", config: "TrainConfig", records: int, seed: int
) -> "PrivacyConfig":
    """Fills in the sampling rate and the steps that all members of a pool share."""
    expected = records / 2
    config = pool_config(config, privacy, records)
    assert config.batch_size is not None
    assert config.epochs is not None
    if privacy.sampling_rate is None and config.batch_size > expected:
        raise InputError(
            f"the batch size is {config.batch_size}; a member sees half of {records} records on "
            f"average, so at most {int(expected)} is needed"
        )
    update: dict[str, float | int] = {}
    if privacy.sampling_rate is None:
        update["sampling_rate"] = config.batch_size / expected
    if privacy.steps is None:
        update["steps"] = config.epochs * math.ceil(expected / config.batch_size)
    if privacy.seed is not None:
        update["seed"] = int(np.random.SeedSequence([privacy.seed, seed]).generate_state(1)[0])
    return privacy.model_copy(update=update)


def _train_job(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    privacy: "PrivacyConfig | None",
    job: tuple[NDArray[np.bool_], int],
) -> Member:
    keep, seed = job
    return train_member(factory, data, config, privacy, keep=keep, seed=seed)
