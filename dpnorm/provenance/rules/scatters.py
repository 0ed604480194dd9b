"""The adjoints of views: a gradient placed into zeros, and values placed into a copy."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import collect, overwrite
from dpnorm.provenance.masks import Mask, clean, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.movement import on_diagonal
from dpnorm.provenance.rules.views import cut, own, sliced


def _gradient(call: Call, name: str = "grad_output") -> Mask:
    mask = call.mask(name)
    assert mask is not None
    return mask


@rule("aten::slice_backward")
def slice_backward(call: Call) -> Mask:
    """Zeros with the gradient in a range."""
    grad, dim = _gradient(call), call["dim"]
    size = int(call["input_sizes"][dim])
    return collect(grad, dim, np.arange(size)[sliced(call)], size)


@rule("aten::select_backward")
def select_backward(call: Call) -> Mask:
    """Zeros with the gradient at one position."""
    sizes = call["input_sizes"]
    dim = call["dim"] % len(sizes)
    line = np.expand_dims(_gradient(call), dim)
    place = np.array([int(call["index"]) % max(int(sizes[dim]), 1)])
    return collect(line, dim, place, int(sizes[dim]))


@rule("aten::diagonal_backward")
def diagonal_backward(call: Call) -> Mask:
    """Zeros with the gradient on a diagonal."""
    return on_diagonal(
        _gradient(call), tuple(call.out.shape), call["offset"], call["dim1"], call["dim2"]
    )


@rule("aten::unfold_backward")
def unfold_backward(call: Call) -> Mask:
    """Each place collects the gradients of all windows that held it."""
    grad, shape = _gradient(call, "grad_in"), tuple(call.out.shape)
    if grad.size == 0 or not shape:
        return clean(shape) if grad.size == 0 else np.bitwise_or.reduce(grad, axis=None)
    dim = call["dim"] % len(shape)
    starts = np.arange(grad.shape[dim]) * call["step"]
    parts = [collect(grad[..., k], dim, starts + k, shape[dim]) for k in range(grad.shape[-1])]
    return union(shape, parts)


@rule("aten::slice_scatter")
def slice_scatter(call: Call) -> Mask:
    """A copy with a range replaced."""
    mask, source = own(call), _gradient(call, "src")
    dim = call["dim"] % mask.ndim
    return overwrite(mask, cut(mask.ndim, dim, sliced(call)), source, [dim])


@rule("aten::select_scatter")
def select_scatter(call: Call) -> Mask:
    """A copy with one position replaced."""
    mask, source = own(call), _gradient(call, "src")
    dim = call["dim"] % mask.ndim
    place = int(call["index"]) % max(mask.shape[dim], 1)
    line = np.expand_dims(np.broadcast_to(source, np.delete(mask.shape, dim)), dim)
    return overwrite(mask, cut(mask.ndim, dim, slice(place, place + 1)), line, [dim])


@rule("aten::diagonal_scatter")
def diagonal_scatter(call: Call) -> Mask:
    """A copy with a diagonal replaced; what stood there keeps its bits."""
    placed = on_diagonal(
        _gradient(call, "src"), tuple(call.out.shape), call["offset"], call["dim1"], call["dim2"]
    )
    return own(call) | placed
