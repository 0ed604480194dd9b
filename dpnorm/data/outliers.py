"""Planting outliers into the train part: the records whose memorization is measured."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from dpnorm.data.dataset import Dataset, Records
from dpnorm.errors import InputError, unknown_name


class OutlierKind(Protocol):
    """Makes the new train part out of the old; draws all its randomness from `rng`."""

    def __call__(
        self, data: Dataset, count: int, rng: np.random.Generator, foreign: Records | None
    ) -> Records: ...


OUTLIERS: dict[str, OutlierKind] = {}


def outlier_kind(name: str) -> Callable[[OutlierKind], OutlierKind]:
    """Registers a function as a kind of outlier."""

    def add(kind: OutlierKind) -> OutlierKind:
        OUTLIERS[name] = kind
        return kind

    return add


def add_outliers(
    data: Dataset, kind: str, count: int, *, seed: int = 0, foreign: Records | None = None
) -> Dataset:
    """Returns a data set whose train part has `count` outliers, flagged in `train.outlier`.

    | kind | what | how |
    |---|---|---|
    | `noise` | uniform noise in [0, 1], random labels | appended |
    | `mislabelled` | random ordinary records with a random wrong label | in their own place |
    | `foreign` | images of another source, random labels | appended |
    | `inverted` | random ordinary images as 1 - x, with their right labels | in their own place |

    Foreign images are patches of the two photographs that ship with scikit-learn, or the records
    in `foreign`, in their order, brought to this data set's size and number of channels.
    Earlier outliers stay and are not picked again. The test and public parts stay as they are,
    and so does `data`.

    Args:
        data: where to plant them.
        kind: a name in `OUTLIERS`.
        count: how many, from 1 to the number of train records.
        seed: the same seed gives the same outliers; no global random state is touched.
        foreign: records for the kind `foreign`, at least `count`.

    Raises:
        InputError: an unknown kind, an impossible count or seed, records that the kind cannot
            be made of (`inverted` needs images in [0, 1], `foreign` needs images).

    >>> from dpnorm.data import load
    >>> train = add_outliers(load("digits"), "noise", 50).train
    >>> len(train), int(train.outlier.sum())
    (1347, 50)
    """
    if kind not in OUTLIERS:
        raise unknown_name("kind of outlier", kind, sorted(OUTLIERS))
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise InputError(f"the number of outliers must be an integer, but {count!r} was given")
    if not 1 <= count <= len(data.train):
        raise InputError(
            f"the number of outliers must be from 1 to the {len(data.train)} train records of "
            f"{data.name!r}, but {count} was given"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"the seed of outliers must be an integer from 0, but {seed!r} was given")
    if foreign is not None and kind != "foreign":
        raise InputError(f"foreign records serve the kind 'foreign', not {kind!r}: leave them out")
    rng = np.random.default_rng([int(seed), *kind.encode()])
    train = OUTLIERS[kind](data, int(count), rng, foreign)
    return dataclasses.replace(data, name=f"{data.name}+{kind}:{count}", train=train)
