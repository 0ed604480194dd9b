"""embedding_bag: rows of a table, summed, averaged or maximized over bags of indices."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import constant_values, scalar, whole
from dpnorm.provenance.masks import Mask, reduce_or, union
from dpnorm.provenance.registry import rule


def _bag_of(offsets: np.ndarray, count: int) -> np.ndarray:
    """The bag that each of `count` indices is in."""
    return np.searchsorted(offsets, np.arange(count), side="right") - 1


@rule("aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def embedding_bag(call: Call) -> list[Mask]:
    """A bag depends on its own indices and weights; offsets with bits taint all.

    The table's rows are all within reach of every index, so that their bits go everywhere.
    """
    output, of_index, size, largest = call.out
    offsets, indices = constant_values(call, call["offsets"]), call.mask("indices")
    weights, weight = call.mask("per_sample_weights"), call.mask("weight")
    assert indices is not None
    assert weight is not None
    shapes = [tuple(t.shape) for t in (output, of_index, size, largest)]
    if offsets is None:
        return [np.broadcast_to(np.uint8(call.all_bits()), shape) for shape in shapes]
    own = union(indices.shape, [m for m in (indices, weights) if m is not None])
    bag = _bag_of(offsets, own.size)
    per_bag = np.zeros(len(offsets) + 1, np.uint8)
    np.bitwise_or.at(per_bag, bag, own)
    table = scalar(weight)

    def spread(shape: tuple[int, ...]) -> Mask:
        if 0 in shape or len(shape) == 0:
            return np.broadcast_to(np.uint8(call.all_bits()), shape)
        if shape[0] == output.shape[0]:
            lines = per_bag[: shape[0]].reshape(-1, *(1,) * (len(shape) - 1))
            return union(shape, [lines, table])
        if shape[0] == own.size:
            return np.broadcast_to(per_bag[bag].reshape(-1, *(1,) * (len(shape) - 1)), shape)
        return np.broadcast_to(np.uint8(call.all_bits()), shape)

    indexed = shapes[1]
    second = per_bag[bag] if indexed == (own.size,) else spread(indexed)
    return [spread(shapes[0]), second, spread(shapes[2]), spread(shapes[3])]


@rule("aten::_embedding_bag_dense_backward", "aten::_embedding_bag_backward")
def embedding_bag_backward(call: Call) -> Mask:
    """The table's gradient mixes records by nature."""
    return np.broadcast_to(np.uint8(call.all_bits()), tuple(call.out.shape))


@rule("aten::_embedding_bag_per_sample_weights_backward")
def embedding_bag_weights_backward(call: Call) -> Mask:
    """An index's weight sees the gradient of its bag and the row that it looks up."""
    offsets, shape = constant_values(call, call["offsets"]), tuple(call.out.shape)
    grad, indices = call.mask("grad"), call.mask("indices")
    assert grad is not None
    assert indices is not None
    if offsets is None or offsets.size == 0 or 0 in shape:
        return np.broadcast_to(np.uint8(call.all_bits()), shape)
    lines = reduce_or(grad, 1, keepdim=False)
    bag = np.minimum(_bag_of(offsets, indices.size), lines.size - 1)
    return union(shape, [lines[bag], indices, whole(call, "weight")])
