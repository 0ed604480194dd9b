"""Sorting, ranking, searching: the values along a dimension compared with each other."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import scalar, whole
from dpnorm.provenance.masks import Mask, core, reduce_or, spread_or
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


def _shape(call: Call) -> tuple[int, ...]:
    out = call.out[0] if isinstance(call.out, (tuple, list)) else call.out
    return tuple(out.shape)


@rule("aten::sort", "aten::argsort", "aten::msort")
def sort(call: Call) -> Mask:
    """Every place of a line depends on the whole line."""
    mask = own(call)
    return spread_or(mask, call.arguments.get("dim", 0)) if mask.ndim else mask


@rule("aten::topk")
def topk(call: Call) -> Mask:
    """Every place of the result depends on the whole line."""
    mask = own(call)
    lines = reduce_or(mask, call["dim"]) if mask.ndim else mask
    return np.broadcast_to(lines, _shape(call))


@rule("aten::kthvalue", "aten::median", "aten::nanmedian", "aten::mode")
def order_statistic(call: Call) -> Mask:
    """One value of a line, or of the tensor where no dimension is named."""
    mask = own(call)
    if "dim" not in call.arguments or mask.ndim == 0:
        return np.broadcast_to(scalar(mask), _shape(call))
    return reduce_or(mask, call["dim"], keepdim=call["keepdim"])


@rule("aten::cummax", "aten::cummin")
def running_extreme(call: Call) -> Mask:
    """A place depends on all places up to it."""
    return _running(own(call), call["dim"])


def _running(mask: Mask, dim: int) -> Mask:
    if mask.ndim == 0 or mask.size == 0:
        return mask
    return np.broadcast_to(np.bitwise_or.accumulate(core(mask), axis=dim), mask.shape)


@rule("aten::_cummax_helper", "aten::_cummin_helper")
def running_extreme_helper(call: Call) -> None:
    """The same, written to two arguments."""
    mask = _running(own(call), call["dim"])
    call.write(call["values"], mask)
    call.write(call["indices"], mask)


@rule("aten::searchsorted")
def searchsorted(call: Call) -> Mask:
    """A value is compared with its whole sorted line."""
    shape, line = _shape(call), call.mask("sorted_sequence")
    assert line is not None
    value = call["self"]
    parts = [line, call.mask("sorter")]
    flat = line.ndim <= 1 or not shape
    lines = [scalar(p) if flat else reduce_or(p, -1) for p in parts if p is not None]
    values = call.mask(value) if hasattr(value, "shape") else None
    return call.union(shape, *lines, values)


@rule("aten::bucketize")
def bucketize(call: Call) -> Mask:
    """A value is compared with all boundaries."""
    value = call["self"]
    values = call.mask(value) if hasattr(value, "shape") else None
    return call.union(_shape(call), values, whole(call, "boundaries"))


@rule("aten::isin")
def isin(call: Call) -> Mask:
    """An element is compared with all others."""
    elements, tests = call.arguments.get("elements"), call.arguments.get("test_elements")
    found = call.mask(elements) if hasattr(elements, "shape") else None
    against = whole(call, tests) if hasattr(tests, "shape") else None
    return call.union(_shape(call), found, against)


@rule("aten::multinomial")
def multinomial(call: Call) -> Mask:
    """Draws from a line of probabilities depend on the whole line."""
    mask = own(call)
    return np.broadcast_to(reduce_or(mask, -1), _shape(call))


@rule("aten::histc", "aten::histogram", "aten::_histogramdd_bin_edges")
@rule("aten::_histogramdd_from_bin_cts", "aten::_histogramdd_from_bin_tensors")
def histogram(call: Call) -> Mask:
    """Counts over all elements; the range may depend on them too."""
    return np.asarray(np.uint8(call.all_bits()))
