"""Training one member of a pool."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.course import MemberCourse
from dpnorm.leakage.observe import observed_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        test_logits: float32[T, K] of the test records, in eval mode; None where there are none.
        course: what was seen along the training; None where it was not watched.
    """

    keep: NDArray[np.bool_]
    logits: NDArray[np.float32]
    accuracy: float
    statement: dict[str, Any] | None
    seconds: float
    history: tuple[dict[str, Any], ...]
    test_logits: NDArray[np.float32] | None = None
    course: MemberCourse | None = None


def train_member(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    privacy: "PrivacyConfig | None",
    *,
    keep: NDArray[np.bool_],
    seed: int,
    views: int = 1,
    view_kind: str = "shift",
    watch_every: int = 0,
    watch_norms: bool = False,
) -> Member:
    """Trains `factory()` on the training records in `keep` and looks at all of them.

    The signals are logits in eval mode: in train mode normalization layers and dropout would mix
    the records and blur them (`observed_logits`).

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
        views: A, test-time views of each record (`fixed_views`).
        view_kind: "shift" or "shift-flip".
        watch_every: look at losses and predictions every so many epochs, and after the last one; 0
            for never.
        watch_norms: then also at the gradient norms of the records in `keep`, in training mode and
            before clipping.

    Raises:
        InputError: `keep` does not fit the data or is empty, or the batch is larger than half of
            the records in a private training.
    """
    import torch

    from dpnorm.leakage.watcher import Watcher
    from dpnorm.training import train

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
    watcher = None
    if watch_every:
        batch = config.batch_size if watch_norms else None
        watcher = Watcher(factory, data.train, keep, every=watch_every, batch_size=batch)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trained = train(
            fresh_model(factory, data.train.x, private=privacy is not None),
            part,
            config.model_copy(update={"seed": seed}),
            None if privacy is None else pool_privacy(privacy, config, records, seed),
            watch=watcher,
        )
    course = None
    if watcher is not None:
        watcher.look(trained.model, int(trained.history[-1]["epoch"]))
        course = watcher.course()
    test = data.test.x
    return Member(
        keep=keep,
        logits=observed_logits(trained.model, data.train.x, views=views, kind=view_kind),
        accuracy=float(trained.accuracy),
        statement=None if trained.statement is None else trained.statement.to_dict(),
        seconds=time.perf_counter() - started,
        history=tuple(trained.history),
        test_logits=observed_logits(trained.model, test)[:, 0] if len(test) else None,
        course=course,
    )


def fresh_model(factory: "Callable[[], nn.Module]", x: "Tensor", *, private: bool) -> "nn.Module":
    """A member before its training, where it is trained and in the memory layout that is fastest.

    Args:
        factory: of the model.
        x: (N, *shape), records to try the layout on.
        private: whether DP-SGD trains it.
    """
    from dpnorm.training.device import best_device
    from dpnorm.training.layout import channels_last_where_it_runs

    model = factory().to(best_device())
    return model if private else channels_last_where_it_runs(model, x)


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
    privacy = expected_privacy(privacy, config, expected)
    if privacy.seed is None:
        return privacy
    own = int(np.random.SeedSequence([privacy.seed, seed]).generate_state(1)[0])
    return privacy.model_copy(update={"seed": own})


def expected_privacy(
    privacy: "PrivacyConfig", config: "TrainConfig", expected: float
) -> "PrivacyConfig":
    """Fills in sampling rate and steps from the expected number of records: coins move neither.

    Args:
        privacy: what it says already stays.
        config: with nothing left open.
        expected: of the records that a training gets by coins.

    Raises:
        InputError: the batch is larger.
    """
    assert config.batch_size is not None
    assert config.epochs is not None
    if privacy.sampling_rate is None and config.batch_size > expected:
        raise InputError(
            f"the batch size is {config.batch_size}; a training sees {int(expected)} records on "
            "average, half of those that are in by a coin, so at most that is needed"
        )
    update: dict[str, float | int] = {}
    if privacy.sampling_rate is None:
        update["sampling_rate"] = config.batch_size / expected
    if privacy.steps is None:
        update["steps"] = config.epochs * math.ceil(expected / config.batch_size)
    return privacy.model_copy(update=update)
