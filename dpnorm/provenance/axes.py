"""What many rules need: reading dims, reducing to an output's shape, fitting optional outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dpnorm.provenance.masks import Mask, bits, clean, core, reduce_or, reshape, uniform


def all_but(ndim: int, *kept: int) -> tuple[int, ...]:
    """Every dimension but the kept ones.

    >>> all_but(4, 1)
    (0, 2, 3)
    """
    return tuple(d for d in range(ndim) if d not in kept)


def named_dims(value: Any, ndim: int) -> tuple[int, ...]:
    """Dimensions as an operator names them: None or an empty list (or names) mean all of them."""
    listed = [value] if isinstance(value, int) else list(value or ())
    if not listed or not all(isinstance(d, int) for d in listed) or ndim == 0:
        return tuple(range(ndim))
    return tuple(d % ndim for d in listed)


def reduced_to(mask: Mask, dims: Sequence[int], shape: Sequence[int]) -> Mask:
    """OR along dims, in the shape of the result, whether it keeps these dims or not."""
    if tuple(shape) == mask.shape:  # nothing longer than 1 was reduced
        return mask
    return reshape(reduce_or(mask, dims) if mask.ndim else mask, shape)


def spread(mask: Mask, dims: Sequence[int]) -> Mask:
    """OR along dims, kept with length 1, so that it broadcasts over them; 0-d masks too."""
    return reduce_or(mask, dims) if mask.ndim else mask


def placed(mask: Mask | None, dim: int, ndim: int) -> Mask | None:
    """A per-channel vector as (1, ..., C, ..., 1); anything but a vector says all its bits."""
    if mask is None:
        return None
    if mask.ndim != 1:
        return uniform((1,) * ndim, bits(mask))
    return np.broadcast_to(core(mask), mask.shape).reshape(
        [-1 if d == dim else 1 for d in range(ndim)]
    )


def fitted(mask: Mask, tensor: Tensor) -> Mask:
    """The mask for an output that some kernels return in full and others empty or as a buffer."""
    shape = tuple(tensor.shape)
    if 0 in shape:
        return clean(shape)
    return mask if mask.shape == shape else uniform(shape, bits(mask))


def present(out: Any, masks: Sequence[Mask]) -> list[Mask]:
    """The masks of those outputs that exist (an unwanted gradient is None)."""
    outs = out if isinstance(out, (tuple, list)) else (out,)
    return [
        fitted(mask, tensor) if tensor.shape != mask.shape else mask
        for tensor, mask in zip(outs, masks, strict=True)
        if isinstance(tensor, Tensor)
    ]
