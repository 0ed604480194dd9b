"""Moving masks along one dimension: taking positions, collecting into positions, overwriting.

The building blocks of the rules of views, movement and indexing. All of them keep constant
(stride-0) dimensions constant.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, clean, core

Positions = NDArray[np.intp]


def constant_values(call: Call, tensor: Tensor | None) -> NDArray[Any] | None:
    """The values of a tensor that carries no bit; None if it carries some or holds no values."""
    if tensor is None or call.bits(tensor) or tensor.device.type == "meta":
        return None
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return None
    values: NDArray[Any] = tensor.detach().cpu().numpy()
    return values


def resized(shape: Sequence[int], dim: int, length: int) -> tuple[int, ...]:
    """A shape with another length along `dim`."""
    return tuple(length if d == dim % len(shape) else size for d, size in enumerate(shape))


def take(mask: Mask, dim: int, positions: Positions) -> Mask:
    """The mask at `positions` along `dim`, in their order; position -1 has no bits.

    A dimension in which the mask is constant stays constant, position -1 included.

    >>> take(np.uint8([1, 2, 4]), 0, np.array([2, 2, -1])).tolist()
    [4, 4, 0]
    """
    dim %= mask.ndim
    shape = resized(mask.shape, dim, len(positions))
    if 0 in shape or mask.size == 0:
        return clean(shape)
    small = core(mask)
    if mask.strides[dim] != 0 or mask.shape[dim] == 1:
        taken = small.take(np.maximum(positions, 0), axis=dim)
        absent = positions < 0
        if absent.any():
            taken[(slice(None),) * dim + (absent,)] = 0
        small = taken
    return np.broadcast_to(small, shape)


def collect(mask: Mask, dim: int, positions: Positions, length: int) -> Mask:
    """The adjoint of `take`: position p of `length` gets the OR of all lines sent to it.

    >>> collect(np.uint8([1, 2, 4]), 0, np.array([2, 2, -1]), 3).tolist()
    [0, 0, 3]
    """
    dim %= mask.ndim
    shape = resized(mask.shape, dim, length)
    kept = positions >= 0
    small = core(mask)
    if 0 in shape or mask.size == 0 or not kept.any():
        return clean(shape)
    result = np.zeros(resized(small.shape, dim, length), np.uint8)
    first: tuple[Any, ...] = (slice(None),) * dim
    if small.shape[dim] == 1:
        result[(*first, positions[kept])] = small
    else:
        lines = np.moveaxis(small, dim, 0)[kept]
        np.bitwise_or.at(np.moveaxis(result, dim, 0), positions[kept], lines)
    return np.broadcast_to(result, shape)


def overwrite(mask: Mask, where: tuple[Any, ...], source: Mask, dims: Sequence[int]) -> Mask:
    """The mask with `mask[where] = source`, where `where` cuts along `dims` only."""
    small, piece = core(mask), mask[where]
    fresh = core(np.broadcast_to(source, piece.shape))
    kept = [d for d in range(mask.ndim) if not _dropped(where, d)]
    shape = list(small.shape)
    for d in dims:
        shape[d] = mask.shape[d]
    for position, d in enumerate(kept):
        if d not in dims:
            shape[d] = max(shape[d], fresh.shape[position])
    result = np.broadcast_to(small, shape).copy()
    result[where] = fresh
    return np.broadcast_to(result, mask.shape)


def _dropped(where: tuple[Any, ...], dim: int) -> bool:
    return dim < len(where) and isinstance(where[dim], int)


def concatenate(pieces: Sequence[Mask], dim: int) -> Mask:
    """Masks one behind the other along `dim`; equal constant ones stay constant."""
    dim %= pieces[0].ndim
    length = sum(piece.shape[dim] for piece in pieces)
    shape = resized(pieces[0].shape, dim, length)
    used = [piece for piece in pieces if piece.shape[dim] > 0]
    if 0 in shape or not used:
        return clean(shape)
    small = [core(piece) for piece in used]
    if all(s.shape[dim] == 1 and np.array_equal(s, small[0]) for s in small):
        return np.broadcast_to(small[0], shape)
    common = np.broadcast_shapes(*[resized(s.shape, dim, 1) for s in small])
    full = [
        np.broadcast_to(s, resized(common, dim, piece.shape[dim]))
        for s, piece in zip(small, used, strict=True)
    ]
    return np.broadcast_to(np.concatenate(full, axis=dim), shape)


def whole(call: Call, *arguments: str | Tensor | None) -> Mask:
    """All bits of the named arguments, as a mask that broadcasts to anything."""
    return np.asarray(np.uint8(call.bits(*arguments)))


def scalar(mask: Mask | None) -> Mask:
    """All bits of a mask, as a mask that broadcasts to anything."""
    return np.asarray(np.uint8(0 if mask is None else bits(mask)))


def given(call: Call, *names: str) -> list[Tensor]:
    """Those of the named arguments that are tensors."""
    found = [call.arguments.get(name) for name in names]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


def returned(call: Call, masks: Sequence[Mask]) -> list[Mask]:
    """The masks of those outputs that exist: an output that is not asked for is None."""
    return [mask for out, mask in zip(call.out, masks, strict=True) if isinstance(out, Tensor)]
