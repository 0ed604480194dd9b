"""Softmax and its kin: every element of a line depends on the whole line."""

from collections.abc import Sequence

import numpy as np

from dpnorm.provenance.axes import named_dims, present, spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, uniform
from dpnorm.provenance.registry import rule


@rule("aten::_softmax", "aten::_log_softmax", "aten::_safe_softmax")
def softmax(call: Call) -> Mask:
    """OR along dim."""
    mask = call.mask("self")
    assert mask is not None
    return spread(mask, named_dims(call["dim"], mask.ndim))


@rule("aten::_softmax_backward_data", "aten::_log_softmax_backward_data")
def softmax_backward(call: Call) -> Mask:
    """The gradient subtracts a sum over the line, of the output and of its gradient."""
    return _line(call, "output", "grad_output")


@rule("aten::_masked_softmax")
def masked_softmax(call: Call) -> Mask:
    """The line and its part of the attention mask; dim None is the last one."""
    return _line(call, "self", "mask")


@rule("aten::_masked_softmax_backward")
def masked_softmax_backward(call: Call) -> Mask:
    """As for softmax, with the attention mask."""
    return _line(call, "output", "grad_output", "mask")


def _line(call: Call, *names: str) -> Mask:
    """OR of arguments, along dim; the first one has the output's shape."""
    found = [mask for mask in map(call.mask, names) if mask is not None]
    shape = found[0].shape
    dim = call.arguments.get("dim")
    dims = named_dims(-1 if dim is None else dim, len(shape))
    aligned = [_aligned(mask, shape, call.arguments.get("mask_type")) for mask in found]
    return call.union(shape, *[spread(mask, dims) for mask in aligned])


def _aligned(mask: Mask, shape: Sequence[int], kind: int | None) -> Mask:
    """An attention mask beside (B, heads, L, L): type 0 is (L, L), type 1 (B, L)."""
    if mask.ndim == len(shape):
        return mask
    if kind == 1 and mask.ndim == 2 and len(shape) == 4:
        return mask[:, None, None, :]
    if kind == 0 and mask.ndim == 2 and len(shape) == 4:
        return mask[None, None]
    return uniform((1,) * len(shape), bits(mask))


@rule("aten::log_sigmoid_forward")
def log_sigmoid(call: Call) -> list[Mask]:
    """Pointwise; the buffer is exp(-|x|) on the CPU and empty on CUDA."""
    mask = call.mask("self")
    assert mask is not None
    return present(call.out, [mask, mask])


@rule("aten::log_sigmoid_backward")
def log_sigmoid_backward(call: Call) -> Mask:
    """Pointwise, whether the buffer is full or empty."""
    shape = tuple(call.out.shape)
    buffer = call.mask("buffer")
    if buffer is not None and buffer.shape != shape:
        buffer = uniform((), bits(buffer))
    return call.union(shape, call.mask("self"), call.mask("grad_output"), buffer)


@rule("aten::glu")
def glu(call: Call) -> Mask:
    """First half times the sigmoid of the second."""
    return _halves(call, call.mask("self"))


@rule("aten::glu_jvp")
def glu_tangent(call: Call) -> Mask:
    """The tangent of the product, half by half."""
    both = call.union(tuple(call["x"].shape), call.mask("x"), call.mask("dx"))
    return call.union(tuple(call.out.shape), _halves(call, both), call.mask("glu"))


@rule("aten::glu_backward")
def glu_backward(call: Call) -> Mask:
    """Each half's gradient meets both halves at the same place."""
    half = _halves(call, call.mask("self"))
    return _doubled(call, call.union(half.shape, half, call.mask("grad_output")))


@rule("aten::glu_backward_jvp")
def glu_backward_tangent(call: Call) -> Mask:
    """As the gradient, with the tangents of what it is made of."""
    shape = tuple(call["x"].shape)
    full = call.union(shape, *[call.mask(name) for name in ("grad_x", "x", "dx")])
    half = _halves(call, full)
    tangents = (call.mask("grad_glu"), call.mask("dgrad_glu"))
    return _doubled(call, call.union(half.shape, half, *tangents))


def _halves(call: Call, mask: Mask | None) -> Mask:
    assert mask is not None
    first, second = np.split(mask, 2, axis=call["dim"])
    return call.union(first.shape, first, second)


def _doubled(call: Call, half: Mask) -> Mask:
    return np.concatenate([half, half], axis=call["dim"])
