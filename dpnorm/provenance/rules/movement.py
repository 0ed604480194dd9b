"""Operators that move elements without reading their values: joining, turning, repeating, padding.

The output's mask is the input's, moved the same way; dimensions in which it is constant stay so,
padding included (a padded place may get the bits of the line it extends).
"""

import math

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import Positions, collect, concatenate, take
from dpnorm.provenance.masks import Mask, clean, reduce_or, reshape
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


@rule("aten::cat", "aten::concat", "aten::concatenate")
def cat(call: Call) -> Mask:
    """Masks joined along a dimension; empty vectors are skipped, as torch does."""
    masks = [call.mask(tensor) for tensor in call["tensors"]]
    used = [m for m in masks if m is not None and m.shape != (0,)]
    return concatenate(used, call["dim"]) if used else clean(call.out.shape)


@rule("aten::stack", "aten::_stack")
def stack(call: Call) -> Mask:
    """Masks joined along a new dimension."""
    dim = call["dim"] % call.out.ndim
    masks = [call.mask(tensor) for tensor in call["tensors"]]
    return concatenate([np.expand_dims(m, dim) for m in masks if m is not None], dim)


@rule("aten::block_diag")
def block_diag(call: Call) -> Mask:
    """Matrices along a diagonal, zeros (no bits) elsewhere."""
    result, row, column = np.zeros(tuple(call.out.shape), np.uint8), 0, 0
    for tensor in call["tensors"]:
        mask = call.mask(tensor)
        assert mask is not None
        block = np.atleast_2d(mask)
        result[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return result


@rule("aten::flip")
def flip(call: Call) -> Mask:
    """Dimensions reversed."""
    mask = own(call)
    return np.flip(mask, tuple(d % mask.ndim for d in call["dims"])) if mask.ndim else mask


@rule("aten::roll")
def roll(call: Call) -> Mask:
    """Dimensions rotated; without dims the flattened tensor."""
    mask = own(call)
    if mask.size == 0 or mask.ndim == 0:
        return mask
    if not call["dims"]:
        flat = reshape(mask, (mask.size,))
        return reshape(_rolled(flat, 0, call["shifts"][0]), mask.shape)
    for dim, shift in zip(call["dims"], call["shifts"], strict=True):
        mask = _rolled(mask, dim, shift)
    return mask


def _rolled(mask: Mask, dim: int, shift: int) -> Mask:
    return take(mask, dim, np.roll(np.arange(mask.shape[dim]), shift))


@rule("aten::rot90")
def rot90(call: Call) -> Mask:
    """A plane turned by quarter turns."""
    return np.rot90(own(call), call["k"], tuple(call["dims"]))


@rule("aten::repeat")
def repeat(call: Call) -> Mask:
    """The whole tensor repeated along each dimension."""
    mask = own(call)
    repeats = [int(r) for r in call["repeats"]]
    mask = mask.reshape((1,) * (len(repeats) - mask.ndim) + mask.shape)
    for dim, times in enumerate(repeats):
        if times != 1:
            mask = take(mask, dim, np.tile(np.arange(mask.shape[dim]), times))
    return mask


@rule("aten::triu", "aten::tril")
def triangle(call: Call) -> Mask:
    """Some elements become zero; they keep their bits, which costs nothing but precision."""
    return own(call)


@rule("aten::diag_embed")
def diag_embed(call: Call) -> Mask:
    """A vector on the diagonal of a matrix; zeros (no bits) elsewhere."""
    return on_diagonal(own(call), tuple(call.out.shape), call["offset"], call["dim1"], call["dim2"])


def on_diagonal(mask: Mask, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Mask:
    """No bits but on the diagonal of two dimensions, which holds the mask's last dimension."""
    dims = (dim1 % len(shape), dim2 % len(shape))
    rest = [size for d, size in enumerate(shape) if d not in dims]
    matrices = np.zeros((*rest, shape[dims[0]], shape[dims[1]]), np.uint8)
    steps = np.arange(mask.shape[-1])
    matrices[..., steps + max(0, -offset), steps + max(0, offset)] = mask
    return np.moveaxis(matrices, (-2, -1), dims)


@rule("aten::constant_pad_nd")
def constant_pad(call: Call) -> Mask:
    """Margins of a constant, from the last dimension on; negative margins crop."""
    mask, pad = own(call), [int(p) for p in call["pad"]]
    for i in range(len(pad) // 2):
        dim = mask.ndim - 1 - i
        size = mask.shape[dim]
        places = np.arange(-pad[2 * i], size + pad[2 * i + 1])
        if pad[2 * i] or pad[2 * i + 1]:
            inside = (places >= 0) & (places < size)
            mask = take(mask, dim, np.where(inside, places, -1))
    return np.broadcast_to(mask, tuple(call.out.shape)) if mask.size else clean(call.out.shape)


def _reflected(size: int, left: int, right: int) -> Positions:
    """Where each position of a reflected line comes from; the border itself is not doubled."""
    period = max(2 * (size - 1), 1)
    places = np.arange(-left, size + right) % period
    return np.minimum(places, period - places)


def _replicated(size: int, left: int, right: int) -> Positions:
    """Where each position of a line with repeated borders comes from."""
    return np.clip(np.arange(-left, size + right), 0, max(size - 1, 0))


def _sources(call: Call, size: int, pair: int) -> Positions:
    """The source positions of one padded dimension, the last one being pair 0."""
    left, right = (int(p) for p in call["padding"][2 * pair : 2 * pair + 2])
    reflects = "reflection" in call.name
    return _reflected(size, left, right) if reflects else _replicated(size, left, right)


_BORDERS = [f"aten::{mode}_pad{n}d" for mode in ("reflection", "replication") for n in (1, 2, 3)]


@rule(*_BORDERS)
def border_pad(call: Call) -> Mask:
    """Margins filled from the line they extend."""
    mask = own(call)
    for pair in range(len(call["padding"]) // 2):
        dim = mask.ndim - 1 - pair
        mask = take(mask, dim, _sources(call, mask.shape[dim], pair))
    return mask


@rule(*[f"{name}_backward" for name in _BORDERS])
def border_pad_backward(call: Call) -> Mask:
    """A margin's gradient is added to the place that it was copied from."""
    grad = call.mask("grad_output")
    assert grad is not None
    for pair in range(len(call["padding"]) // 2):
        dim = grad.ndim - 1 - pair
        size = call["self"].shape[dim]
        grad = collect(grad, dim, _sources(call, size, pair), size)
    return grad


@rule("aten::pixel_shuffle")
def pixel_shuffle(call: Call) -> Mask:
    """(C r r, H, W) -> (C, H r, W r)."""
    mask, r = own(call), call["upscale_factor"]
    *lead, c, h, w = mask.shape
    n = len(lead)
    split = reshape(mask, (*lead, c // (r * r), r, r, h, w))
    moved = split.transpose(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return reshape(moved, tuple(call.out.shape))


@rule("aten::pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Mask:
    """(C, H r, W r) -> (C r r, H, W)."""
    mask, r = own(call), call["downscale_factor"]
    *lead, c, h, w = mask.shape
    n = len(lead)
    split = reshape(mask, (*lead, c, h // r, r, w // r, r))
    moved = split.transpose(*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return reshape(moved, tuple(call.out.shape))


@rule("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(call: Call) -> Mask:
    """Channels in groups, the groups interleaved."""
    mask, groups = own(call), call["groups"]
    n, c, *rest = mask.shape
    moved = reshape(mask, (n, groups, c // groups, *rest)).swapaxes(1, 2)
    return reshape(moved, mask.shape)


@rule("aten::im2col")
def im2col(call: Call) -> Mask:
    """Patches as columns: a patch may see every place of its channel."""
    mask, taps = own(call), math.prod(call["kernel_size"])
    lines = np.repeat(reduce_or(mask, (-2, -1), keepdim=False), taps, axis=-1)
    return np.broadcast_to(lines[..., None], tuple(call.out.shape))


@rule("aten::col2im")
def col2im(call: Call) -> Mask:
    """Columns summed into an image: a place may see every patch of its channel."""
    lines, taps = reduce_or(own(call), -1, keepdim=False), math.prod(call["kernel_size"])
    channels = reshape(lines, (*lines.shape[:-1], lines.shape[-1] // taps, taps))
    seen = reduce_or(channels, -1, keepdim=False)
    return np.broadcast_to(seen[..., None, None], tuple(call.out.shape))


@rule("aten::_chunk_cat")
def chunk_cat(call: Call) -> Mask:
    """Chunks of several tensors side by side: coarse, all of them everywhere."""
    return np.broadcast_to(np.uint8(call.all_bits()), tuple(call.out.shape))
