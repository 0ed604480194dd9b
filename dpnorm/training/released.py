"""The standardization of a recipe; what is released for it is kept, and never released anew."""

import json
from pathlib import Path

import torch

from dpnorm.data import Dataset, exact_moments, standardized
from dpnorm.errors import InputError
from dpnorm.files import write_text
from dpnorm.privacy import Ledger, privatize_moments
from dpnorm.training.recipe import TrainingRecipe


def release_moments(data: Dataset, recipe: TrainingRecipe, path: Path) -> None:
    """Releases moments with noise where the recipe says so, and writes them with their ledger.

    Where the file is there already nothing is done: another release would cost its epsilon again.

    Raises:
        InputError: as `privatize_moments`.
        StorageError: the file cannot be written; nobody has seen the moments then.
    """
    wanted, privacy = recipe.standardize, recipe.privacy
    if wanted.moments != "private" or path.exists():
        return
    assert privacy is not None  # as the recipe made sure
    moments = privatize_moments(
        data,
        noise_multiplier=wanted.noise_multiplier,
        epsilon=wanted.epsilon,
        delta=privacy.delta,
        bounds=wanted.bounds,
        accountant=privacy.accountant,
        seed=privacy.seed,
    )
    kept = {
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "noise_multiplier": moments.noise_multiplier,
        "randomness": moments.randomness,
        "ledger": moments.ledger.to_dict(),
    }
    write_text(path, json.dumps(kept, indent=2) + "\n")


def prepared(data: Dataset, recipe: TrainingRecipe, path: Path) -> tuple[Dataset, Ledger]:
    """The data as the recipe standardizes them, and the ledger of what was released for that.

    Raises:
        InputError: as `exact_moments`, or what `release_moments` wrote is missing or damaged.
    """
    if recipe.standardize.moments == "private":
        return _by_released(data, path)
    return exact_moments(data) if recipe.standardize.moments == "exact" else data, Ledger()


def _by_released(data: Dataset, path: Path) -> tuple[Dataset, Ledger]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        mean, std = (torch.tensor(kept[name], dtype=torch.float64) for name in ("mean", "std"))
        noise, ledger = float(kept["noise_multiplier"]), Ledger.from_dict(kept["ledger"])
        scaling = (
            "by a mean and a standard deviation of the training records that were released with "
            f"Gaussian noise of multiplier {noise:.4g}"
        )
        return standardized(data, mean, std, scaling=scaling), ledger
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{str(path)!r} does not hold the moments that this run released ({error}): without "
            "them it cannot go on; begin a new run in another folder with -o"
        ) from None
