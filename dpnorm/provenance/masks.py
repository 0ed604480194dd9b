"""Record masks: uint8 arrays in which bit k says that an element may depend on record k.

A mask has the shape of its tensor. Most masks are constant along every dimension but the record's;
such dimensions have stride 0 (`numpy.broadcast_to`), and every function here computes on the core
that remains when they are cut to length 1, so that the cost of masks nearly disappears. Masks are
never written in place: what a function returns may share memory with what it was given.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]

_FIRST, _ALL = slice(0, 1), slice(None)
_ONE = np.uint8(1)


def clean(shape: Sequence[int]) -> Mask:
    """A mask without any bit."""
    return uniform(shape, 0)


def uniform(shape: Sequence[int], bits: int) -> Mask:
    """A mask with the same bits everywhere."""
    return _uniform(tuple(shape), bits)


@functools.lru_cache(4096)
def _uniform(shape: tuple[int, ...], bits: int) -> Mask:
    return np.broadcast_to(np.uint8(bits), shape)


def core(mask: Mask) -> Mask:
    """The mask with every constant (stride-0) dimension cut to length 1.

    >>> core(np.broadcast_to(np.uint8([[1], [2]]), (2, 5))).shape
    (2, 1)
    """
    if 0 not in mask.strides:
        return mask
    return mask[tuple([_FIRST if stride == 0 else _ALL for stride in mask.strides])]


def broadcast(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask in a shape that it broadcasts to."""
    return mask if mask.shape == shape else np.broadcast_to(mask, shape)


def union(shape: Sequence[int], masks: Iterable[Mask]) -> Mask:
    """OR of masks that broadcast to `shape`, element by element."""
    result: Mask = np.uint8(0)  # type: ignore[assignment]
    for mask in masks:
        result = np.bitwise_or(result, core(mask))
    return broadcast(result, tuple(shape))


def reduce_or(mask: Mask, dims: int | Sequence[int], *, keepdim: bool = True) -> Mask:
    """OR along `dims`; with `keepdim` they stay with length 1.

    >>> reduce_or(np.uint8([[1, 2], [4, 0]]), 1, keepdim=False).tolist()
    [3, 4]
    """
    axes = tuple(d % mask.ndim for d in ((dims,) if isinstance(dims, int) else dims))
    result = np.bitwise_or.reduce(core(mask), axis=axes, keepdims=True)
    shape = tuple(1 if d in axes else size for d, size in enumerate(mask.shape))
    full = np.broadcast_to(result, shape)
    return full if keepdim else np.squeeze(full, axis=axes)


def spread_or(mask: Mask, dims: int | Sequence[int]) -> Mask:
    """OR along `dims`, spread over them again: the same shape, every element sees its line."""
    return np.broadcast_to(reduce_or(mask, dims), mask.shape)


def bits(mask: Mask) -> int:
    """OR over all elements, as an integer; 0 for an empty mask."""
    return int(np.bitwise_or.reduce(core(mask), axis=None))


def any_mixed(mask: Mask) -> bool:
    """Whether an element carries more than one bit."""
    small = np.atleast_1d(core(mask))  # a scalar would warn of the wrap
    return bool((small & (small - _ONE)).any())  # without its lowest bit something is left


def compress(mask: Mask) -> Mask:
    """The same mask with stride 0 along every dimension in which it is constant."""
    small = core(mask)
    for dim, size in enumerate(small.shape):
        if size > 1:
            first = small.take([0], axis=dim)
            if np.array_equal(np.broadcast_to(first, small.shape), small):
                small = first
    return np.broadcast_to(small, mask.shape)


def reshape(mask: Mask, shape: Sequence[int]) -> Mask:
    """The mask of a reshaped (row-major) tensor; constant dimensions stay constant.

    Old and new dimensions are matched in blocks of equal product; a block that is constant in the
    old shape is constant in the new one, and only the others are laid out in memory.
    """
    old, new = list(mask.shape), list(shape)
    if 0 in old or 0 in new:
        return clean(shape)
    blocks = _blocks(old, new)
    constant_old = [
        stride == 0 or size == 1 for size, stride in zip(old, mask.strides, strict=True)
    ]
    cut: list[slice] = [slice(None)] * len(old)
    small_old: list[int] = []
    small_new: list[int] = []
    for olds, news in blocks:
        if all(constant_old[d] for d in olds):
            for d in olds:
                cut[d] = slice(0, 1)
            small_old += [1] * len(olds)
            small_new += [1] * len(news)
        else:
            small_old += [old[d] for d in olds]
            small_new += [new[d] for d in news]
    small = mask[tuple(cut)].reshape(small_new)
    return np.broadcast_to(small, tuple(new))


def _blocks(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """Matches dimensions of two shapes of equal product, both read from the left."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        olds, news, left, right = [], [], 1, 1
        if i < len(old):
            olds, left, i = [i], old[i], i + 1
        if j < len(new):
            news, right, j = [j], new[j], j + 1
        while left != right:
            if left < right:
                olds.append(i)
                left, i = left * old[i], i + 1
            else:
                news.append(j)
                right, j = right * new[j], j + 1
        blocks.append((olds, news))
    return blocks
