"""Fourier transforms and segment reductions: everything along a dim meets."""

from dpnorm.provenance.axes import spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, uniform
from dpnorm.provenance.registry import rule


@rule("aten::_fft_r2c", "aten::_fft_c2r", "aten::_fft_c2c")
def fourier(call: Call) -> Mask:
    """Every frequency depends on the whole line, and the other way round."""
    mask = call.mask("self")
    assert mask is not None
    return spread(mask, tuple(call["dim"]))


@rule("aten::segment_reduce")
def segment_reduce(call: Call) -> Mask:
    """Segments are not told apart: OR along the axis, with all bits of what delimits them."""
    data = call.mask("data")
    assert data is not None
    found = call.bits(*[call.arguments.get(name) for name in ("lengths", "indices", "offsets")])
    return spread(data, (call["axis"],)) | uniform((), found)


@rule("aten::_segment_reduce_backward")
def segment_reduce_backward(call: Call) -> Mask:
    """As forward, for the gradient and what the forward pass gave."""
    found = call.bits(*[call.arguments.get(name) for name in ("lengths", "offsets")])
    lines = [call.mask(name) for name in ("grad", "output", "data")]
    spreads = [spread(mask, (call["axis"],)) for mask in lines if mask is not None]
    return call.union(tuple(call.out.shape), *spreads, uniform((), found))
