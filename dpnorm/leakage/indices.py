"""Indices that a caller chooses records by."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError


def chosen_indices(records: ArrayLike | None, size: int, what: str) -> NDArray[np.int64]:
    """The chosen indices, all of them where nothing was chosen.

    Args:
        records: int[R], R at least 1; None for all.
        size: how many there are to choose from.
        what: they are, such as "records of the pool".

    Raises:
        InputError: no integers, none at all, or one out of range.

    >>> chosen_indices([4, 0], 5, "rows of the batch").tolist()
    [4, 0]
    """
    if records is None:
        return np.arange(size)
    chosen = np.asarray(records)
    if (
        chosen.dtype.kind not in "iu"
        or chosen.ndim != 1
        or not len(chosen)
        or not 0 <= chosen.min() <= chosen.max() < size
    ):
        raise InputError(
            f"records are {chosen.dtype}{list(chosen.shape)}; {what}, from 0 to {size - 1}, at "
            "least one, are needed (np.flatnonzero of a mask)"
        )
    return chosen.astype(np.int64)
