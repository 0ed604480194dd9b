"""What each weight of a convolution meets at each position, and inner products of these windows."""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

COPYING = 60  # floating-point operations that cost as much as a number of a copied window


class Form(Protocol):
    """How a convolution moves over its input."""

    stride: list[int]
    dilation: list[int]
    padding: list[int]


def windows_of(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """A view (n, in, *kernel, *space) of the padded input (n, in, ...)."""
    x = _padded(x, form)
    first, second, *steps = x.stride()
    weights = [s * d for s, d in zip(steps, form.dilation, strict=True)]
    jumps = [s * d for s, d in zip(steps, form.stride, strict=True)]
    shape = (*x.shape[:2], *kernel, *space)
    return x.as_strided(shape, (first, second, *weights, *jumps), x.storage_offset())


def pairs(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """The inner products of windows at each two positions: (n, T, T), T = prod(space)."""
    sizes = x.shape[1:], kernel, space
    if _cost_by_points(form, *sizes) <= _cost_by_windows(*sizes):
        return pairs_by_points(form, x, kernel, space)
    return pairs_by_windows(form, x, kernel, space)


def pairs_cost(form: Form, size: Sequence[int], kernel: Sequence[int], space: Sequence[int]) -> int:
    """Floating-point operations of `pairs` for one record, and as many as all else costs."""
    return min(_cost_by_points(form, size, kernel, space), _cost_by_windows(size, kernel, space))


def pairs_by_windows(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """See `pairs`."""
    rows = windows_of(form, x, kernel, space).reshape(len(x), -1, prod(space))
    return rows.transpose(1, 2) @ rows


def pairs_by_points(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """See `pairs`: sums of inner products of single points of the input.

    Those of two windows are of points that are shifted alike by each place of the kernel. They are
    found once, and added up dimension by dimension.
    """
    points = x.flatten(2)
    size, dimensions = x.shape[2:], len(space)
    found = (points.transpose(1, 2) @ points).view(-1, *size, *size)
    found = _padded(found, form, times=2)  # a product with what is padded is 0
    for i in reversed(range(dimensions)):
        begins = [place * form.dilation[i] for place in range(kernel[i])]
        shifted = [_strided(found, 1 + i, dimensions, b, form.stride[i], space[i]) for b in begins]
        found = shifted[0]
        if len(shifted) > 1:
            found = shifted[0] + shifted[1]
            for another in shifted[2:]:
                found += another
    return found.reshape(len(x), prod(space), prod(space))


def _strided(
    found: Tensor, dimension: int, beside: int, begin: int, step: int, count: int
) -> Tensor:
    """Every so many places of a dimension, and of the one that stands so far beside it."""
    some = slice(begin, begin + (count - 1) * step + 1, step)
    between = (slice(None),) * (beside - 1)
    return found[(slice(None),) * dimension + (some, *between, some)]


def _cost_by_points(
    form: Form, size: Sequence[int], kernel: Sequence[int], space: Sequence[int]
) -> int:
    channels, *sides = size
    padded = prod(side + 2 * around for side, around in zip(sides, form.padding, strict=True))
    return 2 * prod(sides) ** 2 * channels + 40 * padded**2


def _cost_by_windows(size: Sequence[int], kernel: Sequence[int], space: Sequence[int]) -> int:
    places, positions = size[0] * prod(kernel), prod(space)
    return 2 * positions**2 * places + COPYING * positions * places


def _padded(x: Tensor, form: Form, times: int = 1) -> Tensor:
    """With the zeros that the convolution adds around the last dimensions, so many times over."""
    around = [n for padding in reversed(form.padding) for n in (padding, padding)] * times
    return F.pad(x, around) if any(around) else x


def own_padding(module: Any, edges: Sequence[int]) -> tuple[int, ...] | None:
    """The zeros that a convolution itself adds on both sides; None where others come before."""
    if module.padding_mode != "zeros":
        return None
    if module.padding == "valid":
        return (0,) * len(module.stride)
    if isinstance(module.padding, str):  # "same"
        before, after = tuple(edges[-2::-2]), tuple(edges[::-2])
        return before if before == after else None
    return tuple(module.padding)
