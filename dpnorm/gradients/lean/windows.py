"""What each weight of a convolution meets at each position, and inner products of these windows."""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor


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
    """The inner products of windows at each two positions: (n, T, T), T = prod(space).

    Without stride that is a sum of inner products of single positions of the input, shifted alike
    by each place of the kernel; these are found once, and added up dimension by dimension.
    """
    if max(form.stride) > 1:
        rows = windows_of(form, x, kernel, space).reshape(len(x), -1, prod(space)).transpose(1, 2)
        return rows @ rows.transpose(1, 2)
    points = x.flatten(2)
    size, dimensions = x.shape[2:], len(space)
    found = (points.transpose(1, 2) @ points).view(-1, *size, *size)
    found = _padded(found, form, times=2)  # a product with what is padded is 0
    for i in reversed(range(dimensions)):
        shifted = [
            found.narrow(1 + i, place * form.dilation[i], space[i]).narrow(
                1 + dimensions + i, place * form.dilation[i], space[i]
            )
            for place in range(kernel[i])
        ]
        found = shifted[0]
        if len(shifted) > 1:
            found = shifted[0] + shifted[1]
            for another in shifted[2:]:
                found += another
    return found.reshape(len(x), prod(space), prod(space))


def pairs_cost(form: Form, size: Sequence[int], kernel: Sequence[int], space: Sequence[int]) -> int:
    """Floating-point operations of `pairs` for one record, and as many as its additions cost."""
    channels, *sides = size
    if max(form.stride) > 1:
        return 2 * prod(space) ** 2 * channels * prod(kernel)
    padded = prod(side + 2 * around for side, around in zip(sides, form.padding, strict=True))
    return 2 * prod(sides) ** 2 * channels + 40 * padded**2


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
