"""Pools from what a user has at hand: a file, the folder of a pool, or one trained model."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.course import Course
from dpnorm.leakage.folder import DESCRIPTION, PoolFolder
from dpnorm.leakage.observe import observed_logits
from dpnorm.leakage.pool import Pool

if TYPE_CHECKING:
    from torch import nn

    from dpnorm.data import Dataset
    from dpnorm.training.folder import RunFolder
    from dpnorm.training.recipe import TrainingRecipe

KINDS = "a pool saved as .npz, the folder of a pool, of dpnorm train or of dpnorm bench"
_LISTED = 5  # names that an error lists


def open_pools(path: str | Path, *, factory: str | None = None) -> list[tuple[str, Pool]]:
    """Opens a pool, or takes one trained model for a pool of its own.

    | path | pool |
    |---|---|
    | NAME.npz of `Pool.save` | as it was saved |
    | a folder with pool.json | of all its models |
    | a folder of `dpnorm train` | M = 1: the training records are the members, the test records |
    | | the non-members, seen in evaluation mode after the preparation that the run had |

    A pool of one model serves only attacks that need no shadow models, and its members and
    non-members differ by more than a coin: what tells test from training records counts as
    leakage. Nothing is unpickled.

    Args:
        path: of the file or the folder.
        factory: of a run whose model is its user's own code ("package.module:factory"), the same
            name again: code is imported only where its user names it.

    Returns:
        Name and pool; one pair. `dpnorm.benchmark.pools.run_pools` opens the several pools of a
        benchmark.

    Raises:
        InputError: nothing of this kind is there, it is damaged or not finished, the run has no
            test records, or its model is code that was not named.
    """
    path = Path(path)
    name = path.resolve().name
    if not path.exists():
        raise InputError(f"{str(path)!r}: no such file or folder; {KINDS} is needed")
    if not path.is_dir():
        if path.suffix.lower() != ".npz":
            raise InputError(f"{str(path)!r} is a file that is no .npz; {KINDS} is needed")
        return [(path.stem, Pool.load(path))]
    there = _names(path)
    if DESCRIPTION in there:
        return [(name, PoolFolder(path).pool())]
    if "config.json" in there:
        return [(name, _pool_of_run(path, factory))]
    if "run.json" in there:
        raise InputError(
            f"{str(path)!r} is the folder of a benchmark, which holds several pools: open it with "
            "dpnorm.benchmark.pools.run_pools, or with dpnorm attack"
        )
    held = ", ".join(there[:_LISTED]) + (" ..." if len(there) > _LISTED else "")
    raise InputError(f"the folder {str(path)!r} holds {held or 'nothing'}; {KINDS} is needed")


def course_at(path: str | Path) -> Course | None:
    """What was seen of the pool at this path along its training; None where nothing was.

    Raises:
        InputError: the folder holds a pool, but some of its models are not trained.
    """
    folder = PoolFolder(path)
    if not folder.exists or any(member.course is None for member in folder.members()):
        return None
    return folder.course()


def _names(path: Path) -> list[str]:
    try:
        return sorted(item.name for item in path.iterdir())
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _pool_of_run(path: Path, factory: str | None) -> Pool:
    import torch

    from dpnorm.data import load
    from dpnorm.training.folder import CONFIG, MOMENTS, RunFolder
    from dpnorm.training.recipe import read_recipe
    from dpnorm.training.released import prepared

    folder = RunFolder(path)
    _require_finished(folder)
    recipe = read_recipe(path / CONFIG)
    _require_named(recipe.model, factory)
    data, _ = prepared(load(recipe.data), recipe, path / MOMENTS)
    if not len(data.test):
        raise InputError(
            f"{recipe.data!r} has no test records, so that there are no non-members to tell the "
            "training records from: train a pool with dpnorm pool, whose models leave out half"
        )
    model = _loaded(recipe, data, folder)
    parts = (data.train, data.test)
    labels = torch.cat([part.y for part in parts]).numpy()
    logits = np.concatenate([observed_logits(model, part.x) for part in parts])
    size = len(data.train)
    right = logits[size:, 0].argmax(axis=-1) == labels[size:]
    return Pool(
        keep=(np.arange(len(labels)) < size)[None],
        logits=logits[None],
        labels=labels,
        outlier=torch.cat([part.outlier for part in parts]).numpy(),
        accuracy=right.mean(keepdims=True, dtype=np.float64),
    )


def _require_finished(folder: "RunFolder") -> None:
    from dpnorm.training.folder import MODEL

    if not (folder.path / MODEL).is_file() or folder.checkpoint.exists():
        raise InputError(
            f"the run in {str(folder.path)!r} is not finished: it has no {MODEL} yet; run its "
            "dpnorm train again, which goes on with it"
        )


def _require_named(model: str, factory: str | None) -> None:
    scheme, colon, _ = model.partition(":")
    own_code = bool(colon) and scheme not in ("tv", "timm")
    if factory is not None and factory != model:
        raise InputError(f"the model is named {factory!r}, but the run trained {model!r}")
    if own_code and factory is None:
        raise InputError(
            f"the run trained {model!r}, which is code that is imported only where you name it: "
            f"pass factory={model!r} (--model {model} on the command line)"
        )


def _loaded(recipe: "TrainingRecipe", data: "Dataset", folder: "RunFolder") -> "nn.Module":
    """The run's model with its weights."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    from dpnorm.training.folder import MODEL
    from dpnorm.training.networks import build_network

    with torch.random.fork_rng():
        model = build_network(recipe.model, recipe.variant, data)
    file = folder.path / MODEL
    try:
        load_model(model, str(file))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(
            f"{str(file)!r} does not hold the weights of {recipe.model} ({recipe.variant}): "
            f"{str(error).splitlines()[0]}"
        ) from error
    return model
