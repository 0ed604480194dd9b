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
    return _view(form, _padded(form, x), kernel, space)


def rows_of_windows(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """What each weight meets at each position of each input: (in * kernel, space * n).

    Of inputs (n, in, ...), which come last, so that they are copied together.
    """
    x = _padded(form, x).movedim(0, -1).contiguous().movedim(-1, 0)
    return _view(form, x, kernel, space).movedim(0, -1).reshape(x.shape[1] * prod(kernel), -1)


def _padded(form: Form, x: Tensor) -> Tensor:
    around = [n for padding in reversed(form.padding) for n in (padding, padding)]
    return F.pad(x, around) if any(around) else x


def _view(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    first, second, *steps = x.stride()
    weights = [s * d for s, d in zip(steps, form.dilation, strict=True)]
    jumps = [s * d for s, d in zip(steps, form.stride, strict=True)]
    shape = (*x.shape[:2], *kernel, *space)
    return x.as_strided(shape, (first, second, *weights, *jumps), x.storage_offset())


def pairs(form: Form, x: Tensor, kernel: Sequence[int], space: Sequence[int]) -> Tensor:
    """The inner products of windows at each two positions: (n, T, T), T = prod(space)."""
    size = x.shape[1:]
    if _cost_by_points(size, space) <= _cost_by_windows(size, kernel, space):
        return pairs_by_points(form, x, kernel, space)
    return pairs_by_windows(form, x, kernel, space)


def pairs_cost(size: Sequence[int], kernel: Sequence[int], space: Sequence[int]) -> int:
    """Floating-point operations of `pairs` for one record, and as many as all else costs."""
    return min(_cost_by_points(size, space), _cost_by_windows(size, kernel, space))


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
    for i in reversed(range(dimensions)):
        steps = _met(form, i, size[i], kernel[i], space[i])
        found = _added_up(found, steps, 1 + i, 1 + i + dimensions, space[i])
    return found.reshape(len(x), prod(space), prod(space))


_Steps = list[tuple[slice, slice]]  # positions of the output, and the points that they meet


def _met(form: Form, dimension: int, size: int, kernel: int, count: int) -> _Steps:
    """What each place of the kernel meets along a dimension, but for what is padded; most first."""
    found = []
    stride = form.stride[dimension]
    for place in range(kernel):
        begin = place * form.dilation[dimension] - form.padding[dimension]  # at the first position
        first, last = max(0, -(begin // stride)), min(count - 1, (size - 1 - begin) // stride)
        if first <= last:
            points = slice(first * stride + begin, last * stride + begin + 1, stride)
            found.append((slice(first, last + 1), points))
    return sorted(found, key=lambda step: step[0].start - step[0].stop)


def _added_up(found: Tensor, steps: _Steps, first: int, second: int, count: int) -> Tensor:
    """Sums over the places of the kernel along a dimension, which both points have."""

    def along(some: slice) -> tuple[slice, ...]:
        every = [slice(None)] * found.dim()
        every[first] = every[second] = some
        return tuple(every)

    if steps and steps[0][0] == slice(0, count):  # it meets points at every position
        total = found[along(steps[0][1])]
        if len(steps) == 1:
            return total
        total, steps = total.clone(), steps[1:]
    else:
        shape = list(found.shape)
        shape[first] = shape[second] = count
        total = found.new_zeros(shape)
    for positions, points in steps:
        total[along(positions)].add_(found[along(points)])
    return total


def _cost_by_points(size: Sequence[int], space: Sequence[int]) -> int:
    channels, *sides = size
    points = prod(sides)
    return 2 * points**2 * channels + 40 * points * prod(space)


def _cost_by_windows(size: Sequence[int], kernel: Sequence[int], space: Sequence[int]) -> int:
    places, positions = size[0] * prod(kernel), prod(space)
    return 2 * positions**2 * places + COPYING * positions * places


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
