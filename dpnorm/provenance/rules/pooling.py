"""Pooling: OR over the pooled positions of each (sample, channel).

Windows are not told apart: a record never shares a plane with another one in a pooled layout,
and a plane's positions then carry the same bits. Dims that the pool leaves alone (kernel 1 and
stride 1, as a 1-d pool lowered to 2-d has) stay as they are.
"""

from dpnorm.provenance.axes import present, spread
from dpnorm.provenance.call import Call, tensors_of
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.registry import rule


@rule(
    "aten::avg_pool1d",
    "aten::avg_pool2d",
    "aten::avg_pool3d",
    "aten::max_pool1d",
    "aten::max_pool2d",
    "aten::max_pool3d",
    "aten::max_pool1d_with_indices",
    "aten::max_pool2d_with_indices",
    "aten::max_pool3d_with_indices",
    "aten::mkldnn_max_pool2d",
    "aten::mkldnn_max_pool3d",
    "aten::quantized_max_pool1d",
    "aten::quantized_max_pool2d",
    "aten::quantized_max_pool3d",
    "aten::fractional_max_pool2d",
    "aten::fractional_max_pool3d",
)
def pool(call: Call) -> list[Mask]:
    """Values, and for a maximum the positions where they were found."""
    mask = call.mask("self")
    assert mask is not None
    found = spread(mask, _pooled(call, mask.ndim))
    samples = call.mask("random_samples")  # (N, C, k): where fractional windows begin
    if samples is not None:
        starts = spread(samples, (-1,))[..., 0].reshape(*samples.shape[:2], *(1,) * _rank(call))
        starts = starts if mask.ndim == _rank(call) + 2 else starts[0]
        found = call.union((*mask.shape[: -_rank(call)], *(1,) * _rank(call)), found, starts)
    return [found] * len(tensors_of(call.out))


@rule(
    "aten::avg_pool1d_backward",
    "aten::avg_pool2d_backward",
    "aten::avg_pool3d_backward",
    "aten::max_pool2d_backward",
    "aten::max_pool2d_with_indices_backward",
    "aten::max_pool3d_with_indices_backward",
    "aten::mkldnn_max_pool2d_backward",
    "aten::mkldnn_max_pool3d_backward",
    "aten::fractional_max_pool2d_backward",
    "aten::fractional_max_pool3d_backward",
)
def pool_backward(call: Call) -> Mask:
    """The output gradient goes back to the positions it came from; an average needs no values."""
    return _backward(call, _pooled(call, call["grad_output"].dim()))


@rule(
    "aten::_adaptive_avg_pool2d",
    "aten::_adaptive_avg_pool3d",
    "aten::adaptive_avg_pool1d",
    "aten::adaptive_avg_pool2d",
    "aten::adaptive_avg_pool3d",
    "aten::adaptive_max_pool1d",
    "aten::adaptive_max_pool2d",
    "aten::adaptive_max_pool3d",
    "aten::mkldnn_adaptive_avg_pool2d",
)
def adaptive_pool(call: Call) -> list[Mask]:
    """As pooling; a dim that keeps its size has windows of one element."""
    mask, outputs = call.mask("self"), tensors_of(call.out)
    assert mask is not None
    dims = [d for d in range(mask.ndim) if mask.shape[d] != outputs[0].shape[d]]
    return [spread(mask, dims)] * len(outputs)


@rule(
    "aten::_adaptive_avg_pool2d_backward",
    "aten::_adaptive_avg_pool3d_backward",
    "aten::adaptive_avg_pool3d_backward",
    "aten::adaptive_max_pool2d_backward",
    "aten::adaptive_max_pool3d_backward",
    "aten::mkldnn_adaptive_avg_pool2d_backward",
)
def adaptive_pool_backward(call: Call) -> Mask:
    """The output gradient over the windows; a dim that kept its size keeps it."""
    grad, x = call["grad_output"], call["self"]
    return _backward(call, [d for d in range(x.dim()) if x.shape[d] != grad.shape[d]])


@rule("aten::max_unpool2d", "aten::max_unpool3d")
def max_unpool(call: Call) -> list[Mask]:
    """An index names any position of its plane, and moves what the others leave there."""
    mask, indices = call.mask("self"), call.mask("indices")
    assert mask is not None
    planes = range(mask.ndim - _rank(call), mask.ndim)
    both = spread(call.union(mask.shape, mask, indices), tuple(planes))
    return present(call.out, [call.union(tuple(call.out.shape), both)])


def _backward(call: Call, dims: list[int]) -> Mask:
    """OR of the output gradient and, for a maximum, of the indices that route it."""
    named = ["grad_output", "indices"]
    if "max_pool" in call.name and call.arguments.get("indices") is None:
        named.append("self")  # kernels that find the maxima again
        named.append("input")
    lines = [spread(mask, dims) for mask in map(call.mask, named) if mask is not None]
    return call.union(tuple(call.out.shape), *lines)


def _rank(call: Call) -> int:
    """How many dims the pool covers: the last letter but one of its name."""
    return next(int(digit) for digit in "123" if f"{digit}d" in call.name)


def _pooled(call: Call, ndim: int) -> list[int]:
    """The pooled dims, without those in which every window is one element."""
    rank = _rank(call)
    kernel = _each(call["kernel_size"], rank)
    if call.arguments.get("output_size") is not None:  # fractional: windows at random
        return list(range(ndim - rank, ndim))
    stride = _each(call.arguments.get("stride") or kernel, rank)
    return [ndim - rank + d for d in range(rank) if (kernel[d], stride[d]) != (1, 1)]


def _each(value: int | list[int], rank: int) -> list[int]:
    listed = [value] if isinstance(value, int) else list(value)
    return listed * rank if len(listed) == 1 else listed
