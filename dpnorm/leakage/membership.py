"""Which model of a pool is trained on which record."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError


def draw_membership(records: int, models: int, seed: int) -> NDArray[np.bool_]:
    """Draws keep[m, n]: whether model m is trained on record n.

    Each entry is an independent fair coin. A record that lands in every model, or in none, is
    drawn again, so that each record has a member and a non-member to compare (with M models this
    happens to a share 2^(1 - M) of the records).

    The columns are *not* balanced to exactly M / 2 models a record, although that would make the
    estimates a little less noisy. In a balanced column the other models' memberships tell the
    target's own: a target with M / 2 - 1 "in" shadows among the others must be a member. Shadow
    statistics then depend on the label that they are used to guess: a member's "in" mean comes
    from one model fewer than its "out" mean, fits worse, and the ratio leans to "out". On scores
    that carry no signal at all, LiRA on balanced columns has an AUC below one half (0.47 with 8
    models and 0.41 with 4, against 0.50 with fair coins), and real leakage is measured too low.

    Args:
        records: number of records N, at least 1.
        models: number of models M, at least 2.
        seed: a non-negative integer; the same seed draws the same matrix.

    Returns:
        bool[M, N].

    Raises:
        InputError: fewer than 1 record or 2 models, or a negative seed.

    >>> keep = draw_membership(records=1000, models=4, seed=0)
    >>> keep.shape, bool(keep.any(0).all()), bool(keep.all(0).any())
    ((4, 1000), True, False)
    """
    if records < 1 or models < 2:
        raise InputError(
            f"a membership of {records} records in {models} models was asked for: at least "
            "1 record and 2 models are needed, so that each record is in one model and out of one"
        )
    if seed < 0:
        raise InputError(f"the seed is {seed}; it must be 0 or greater")
    generator = np.random.default_rng(seed)
    keep = generator.random((models, records)) < 0.5
    while (constant := keep.all(axis=0) | ~keep.any(axis=0)).any():
        keep[:, constant] = generator.random((models, int(constant.sum()))) < 0.5
    return keep


def grown_membership(records: int, sizes: Sequence[int], seed: int) -> NDArray[np.bool_]:
    """The membership of a pool that had these sizes, one after the other.

    The first is drawn by `draw_membership`. Models that are added are independent fair coins, and
    change nothing for those that were there: every record was in one of them and out of one.

    Args:
        records: N.
        sizes: ascending numbers of models; the last one is M.
        seed: a non-negative integer.

    Returns:
        bool[M, N].

    Raises:
        InputError: as `draw_membership`, or sizes that do not grow.
    """
    if not sizes or any(b <= a for a, b in itertools.pairwise(sizes)):
        raise InputError(f"the sizes of a growing pool are {list(sizes)}; each must be larger")
    keep = draw_membership(records, sizes[0], seed)
    for before, after in itertools.pairwise(sizes):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(before,)))
        keep = np.concatenate([keep, generator.random((after - before, records)) < 0.5])
    return keep
