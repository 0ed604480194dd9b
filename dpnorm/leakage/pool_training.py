"""train_pool: models on random halves, one process a core, in a folder that grows and goes on."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.folder import PoolFolder
from dpnorm.leakage.members import Member, member_seed, pool_config, train_member
from dpnorm.leakage.membership import grown_membership
from dpnorm.leakage.pool import Pool
from dpnorm.parallel import run_jobs

if TYPE_CHECKING:
    from torch import nn

    from dpnorm.data import Dataset
    from dpnorm.privacy import PrivacyConfig
    from dpnorm.training import TrainConfig


class Progress(Protocol):
    """What the training of a pool tells while it works."""

    def begin(self, total: int, finished: int) -> None: ...
    def finished(self, description: str, seconds: float) -> None: ...
    def end(self) -> None: ...


def train_pool(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    *,
    privacy: "PrivacyConfig | None" = None,
    size: int = 8,
    seed: int = 0,
    workers: int | None = None,
    folder: str | Path | None = None,
    outliers: int = 0,
    outlier_kind: str = "noise",
    views: int = 1,
    view_kind: str = "shift",
    watch_every: int = 0,
    watch_norms: int = 0,
    progress: Progress | None = None,
) -> Pool:
    """Trains `size` models on random halves of the training records, one process a core.

    The same seed gives the same pool, whatever the number of workers (a private pool too, if
    `privacy.seed` is set). In a folder each model is written as soon as it is trained: a pool that
    was stopped or killed goes on where the same call is made again, and one that is asked for with
    a larger size grows in place, with the models that it has. A pool of 32 that grows to 64 is not
    the pool of 64 that is trained at once, since its first 32 memberships were drawn so that every
    record is in one of the 32 and out of one.

    Args:
        factory: a module-level function or a `functools.partial` of one: it must be picklable.
        data: the records; `data.train.outlier` goes into the pool.
        config: how to train; each member gets a seed of its own, derived from `seed`.
        privacy: None to train without.
        size: number of models M, at least 2.
        seed: of the membership, of all members and of the outliers.
        workers: number of processes, default one a core.
        folder: of this pool alone; None keeps it in memory.
        outliers: how many to plant into the training records (`dpnorm.data.add_outliers`).
        outlier_kind: which.
        views: A, fixed views of each record under which its logits are taken; 1 for the record.
        view_kind: "shift" or "shift-flip", see `fixed_views`.
        watch_every: look at every member after every so many epochs: `PoolFolder.course` gives what
            was seen. 0 for never. Needs a folder.
        watch_norms: how many members, from the first, are asked for the gradient norms of their
            records too.
        progress: is told of each model.

    Raises:
        InputError: a batch larger than the smallest member's records, before anything is trained; a
            folder with another pool in it, or in which another process trains; and as
            `draw_membership`, `fixed_views` and `train_member`.
        StorageError: a file cannot be written; what was written before is whole.
    """
    from dpnorm.data import add_outliers

    if outliers:
        data = add_outliers(data, outlier_kind, outliers, seed=seed)
    if (watch_every or watch_norms) and folder is None:
        raise InputError("watch_every and watch_norms need a folder: what is seen is kept there")
    if watch_every < 0 or watch_norms < 0 or (watch_norms and not watch_every):
        raise InputError(
            f"watch_every is {watch_every} and watch_norms {watch_norms}: at least 0, and gradient "
            "norms are taken only where watch_every is at least 1"
        )
    config = pool_config(config, privacy, len(data.train))
    options = {"views": views, "view_kind": view_kind, "watch_every": watch_every}
    work = functools.partial(_train_job, factory, data, config, privacy, options)

    def fill(target: "PoolFolder | None", sizes: list[int]) -> list[Member]:
        keep = grown_membership(len(data.train), sizes, seed)
        _require_batch(config, keep)
        found: dict[int, Member] = {}
        if target is not None:
            found = {m: member for m in range(size) if (member := target.member(m, keep[m]))}
        missing = [m for m in range(size) if m not in found]
        if progress is not None:
            progress.begin(size, len(found))
        try:
            jobs = [(keep[m], member_seed(seed, m), m < watch_norms) for m in missing]
            for index, member in run_jobs(work, jobs, workers=workers):
                found[missing[index]] = member
                if target is not None:
                    target.save_member(missing[index], member)
                if progress is not None:
                    progress.finished(f"model {missing[index] + 1}", member.seconds)
        finally:
            if progress is not None:
                progress.end()
        return [found[m] for m in range(size)]

    if folder is None:
        members = fill(None, [size])
    else:
        terms = {
            **_terms(factory, data, config, privacy, seed),
            **options,
            "watch_norms": watch_norms,
        }
        target = PoolFolder(folder)
        with target.entered(terms, data, size, seed) as sizes:
            members = fill(target, sizes)
    return Pool.from_members(
        members,
        labels=data.train.y.cpu().numpy(),
        outlier=data.train.outlier.cpu().numpy(),
        test_labels=data.test.y.cpu().numpy() if len(data.test) else None,
    )


def _require_batch(config: "TrainConfig", keep: NDArray[np.bool_]) -> None:
    fewest = int(keep.sum(axis=1).min())
    assert config.batch_size is not None
    if config.batch_size > fewest:
        raise InputError(
            f"the batch size is {config.batch_size}; the members of this pool train on half of "
            f"{keep.shape[1]} records, the smallest on {fewest}: take a smaller batch"
        )


def _terms(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    privacy: "PrivacyConfig | None",
    seed: int,
) -> dict[str, Any]:
    """What all members of a pool have in common, as plain data."""
    import torch

    from dpnorm.tensors import digest_of

    with torch.random.fork_rng():
        torch.manual_seed(member_seed(seed, 0))
        model = factory()
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return {
        "seed": seed,
        "data": data.name,
        "records": data.fingerprint(),
        "model": digest_of([str(model)], state),
        "privacy": None if privacy is None else privacy.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
    }


def _train_job(
    factory: "Callable[[], nn.Module]",
    data: "Dataset",
    config: "TrainConfig",
    privacy: "PrivacyConfig | None",
    options: dict[str, Any],
    job: tuple[NDArray[np.bool_], int, bool],
) -> Member:
    keep, seed, norms = job
    return train_member(
        factory, data, config, privacy, keep=keep, seed=seed, watch_norms=norms, **options
    )
