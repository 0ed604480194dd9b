"""One fixed, stratified split of labelled arrays into train, test and public."""

from typing import NamedTuple

import numpy as np
import torch

from dpnorm.data.dataset import Dataset, Records
from dpnorm.errors import InputError

SPLIT_SEED = 0


class Split(NamedTuple):
    """Positions of each part, int64, disjoint, together all records, each in a random order."""

    train: np.ndarray
    test: np.ndarray
    public: np.ndarray


def stratified_split(
    labels: np.ndarray, *, test: int, public: int, seed: int = SPLIT_SEED
) -> Split:
    """Splits positions so that every part has the classes in the proportions of the whole.

    Each class gives its share of `test` and `public` to within one or two records (largest
    remainders), and keeps at least one record for `train`. The split is part of the definition
    of a data set: it looks at all labels, so a guarantee starts from the parts, not from before.

    Args:
        labels: integers [N].
        test: size of the test part.
        public: size of the public part.
        seed: of a generator of its own; the random state of numpy and torch stays as it is.

    Raises:
        InputError: too few records for these sizes with one of each class left for train.

    >>> [len(part) for part in stratified_split(np.arange(50) % 5, test=10, public=5)]
    [35, 10, 5]
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    needed = test + public + len(counts)
    if len(labels) < needed:
        raise InputError(
            f"{len(labels)} records are too few to set {test} apart for test and {public} for "
            f"public and keep one of each of the {len(counts)} classes for train: it takes {needed}"
        )
    for_public = _shares(counts, public)
    for_test = _shares(counts - for_public, test)

    order = np.argsort(np.random.default_rng(seed).random(len(labels)), kind="stable")
    by_class = order[np.argsort(classes[order], kind="stable")]
    rank = np.empty(len(labels), dtype=np.int64)  # of a record within its class
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_public = rank < for_public[classes]
    is_test = ~is_public & (rank < (for_public + for_test)[classes])
    return Split(
        train=order[~(is_public | is_test)[order]],
        test=order[is_test[order]],
        public=order[is_public[order]],
    )


def _shares(available: np.ndarray, take: int) -> np.ndarray:
    """Distributes `take` over the classes by largest remainders, leaving each at least one."""
    shares = available * take // available.sum()
    by_remainder = np.argsort(-(available * take % available.sum()), kind="stable")
    while shares.sum() < take:
        for index in by_remainder[: take - shares.sum()]:
            shares[index] += shares[index] < available[index] - 1
        by_remainder = by_remainder[shares[by_remainder] < available[by_remainder] - 1]
    return shares


def split_dataset(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    num_classes: int,
    test: int,
    public: int,
    scaling: str,
    bounds: tuple[float, float] | None = None,
) -> Dataset:
    """Makes a Dataset of arrays x [N, *shape] (already scaled) and y [N] with the fixed split."""
    inputs = torch.from_numpy(np.array(x, dtype=np.float32, order="C"))  # always a copy
    records = Records(inputs, torch.from_numpy(np.array(y, dtype=np.int64)))
    parts = stratified_split(y, test=test, public=public)
    return Dataset(
        name=name,
        train=records.select(parts.train),
        test=records.select(parts.test),
        public=records.select(parts.public),
        num_classes=num_classes,
        shape=tuple(records.x.shape[1:]),
        scaling=scaling,
        bounds=bounds,
    )
