"""Where the numbers of a view stand in the tensor that it is a view of."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in its storage, in numbers of its type."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    itemsize: int

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """That of a tensor now."""
        return cls(
            tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.itemsize
        )

    def places_in(self, base: "Layout") -> NDArray[np.int64] | None:
        """Of each number of this view the place among those of the base, in the base's order.

        Returns:
            Of this view's shape; None where it has another type, or a number that the base has not.
        """
        if self.itemsize != base.itemsize:
            return None
        of_base, of_view = base._positions(), self._positions()
        order = np.argsort(of_base, axis=None, kind="stable")
        known = of_base.reshape(-1)[order]
        found = np.searchsorted(known, of_view)
        if not known.size or (known[np.minimum(found, known.size - 1)] != of_view).any():
            return None
        return np.asarray(order[found])

    def _positions(self) -> NDArray[np.int64]:
        """Of each number in the storage."""
        found = np.full((1,) * len(self.shape), self.offset)
        for dimension, (size, stride) in enumerate(zip(self.shape, self.stride, strict=True)):
            along = np.arange(size) * stride
            found = found + along.reshape(-1, *[1] * (len(self.shape) - dimension - 1))
        return np.broadcast_to(found, self.shape)
