"""Average pooling to given sizes as a matrix product, where that is faster than torch's kernel."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpnorm.gradients.lean.maps import maps_in

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
MOST_POINTS = 256  # of a channel: with more the product is more work than it saves


class LeanAveragePool:
    """`torch.nn.AdaptiveAvgPool2d` to more than one place: the same means up to rounding.

    A channel with a number that is not finite has no finite mean at all.

    Args:
        module: that it stands for.
    """

    def __init__(self, module: nn.AdaptiveAvgPool2d) -> None:
        self.module = module
        self._shares: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def serves(self, *args: Any) -> bool:
        """Whether arguments are a batch that a processor has with channels first."""
        x = maps_in(args)
        return (
            x is not None
            and x.shape[2] * x.shape[3] <= MOST_POINTS
            and not torch.is_autocast_enabled("cpu")
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, C, H, W) to (rows, C, H', W')."""
        sizes = [*zip(x.shape[2:], _two(self.module.output_size), strict=True)]
        asked = [given if places is None else places for given, places in sizes]
        shares = self._shares_of(x.shape[2:], asked, x.dtype)
        found = x.view(-1, len(shares)) @ shares
        # no view, which would be heard otherwise where it is written in place
        return torch.ops.aten._unsafe_view.default(found, (*x.shape[:2], *asked))

    def _shares_of(self, size: torch.Size, asked: list[int], dtype: torch.dtype) -> Tensor:
        """(H * W, H' * W'): by how much each point is in the mean of each place.

        By NumPy, since what torch computes within a transform of `torch.func` ends with it.
        """
        if (size, dtype) not in self._shares:
            high, wide = (_shares(*each) for each in zip(size, asked, strict=True))
            found = torch.from_numpy(np.kron(high, wide).astype(_NUMPY[dtype]))
            self._shares = {(size, dtype): found}  # of other sizes none is kept
        return self._shares[size, dtype]


def _shares(points: int, places: int) -> NDArray[np.float64]:
    """(points, places): a place's mean is of points floor(i P / n) up to ceil((i + 1) P / n)."""
    found = np.zeros((points, places))
    for i in range(places):
        first, end = i * points // places, -(-(i + 1) * points // places)
        found[first:end, i] = 1 / (end - first)
    return found


def _two(size: Any) -> tuple[int | None, int | None]:
    return (size, size) if size is None or isinstance(size, int) else tuple(size)


def average_pool(module: nn.Module) -> LeanAveragePool | None:
    """What runs in the place of a module; None where it is to run as it is.

    One mean of a whole channel is a sum, at which torch is fast.
    """
    if type(module) is not nn.AdaptiveAvgPool2d or "forward" in vars(module):
        return None
    return None if _two(module.output_size) == (1, 1) else LeanAveragePool(module)
