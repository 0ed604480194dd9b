"""Reductions and scans: an output element depends on the line of elements that it sums up."""

import numpy as np

from dpnorm.provenance.axes import all_but, named_dims, reduced_to, spread
from dpnorm.provenance.call import Call, tensors_of
from dpnorm.provenance.masks import Mask, bits, core, uniform
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.pointwise import pointwise


@rule(
    *(
        f"aten::{name}"
        for name in (
            *("sum", "mean", "nansum", "nanmean", "prod", "amax", "amin", "aminmax", "_aminmax"),
            *("argmax", "argmin", "all", "any", "count_nonzero", "var", "std", "var_mean"),
            *("std_mean", "norm", "linalg_vector_norm", "logsumexp", "special_logsumexp"),
            *("max", "min", "hash_tensor", "_is_all_true", "_is_any_true"),
        )
    )
)
def reduction(call: Call) -> Mask | list[Mask]:
    """OR along the reduced dims; indices of a maximum depend on the same line as its value.

    A `dim` of None or [] reduces all, except where the result has the shape of the input: then
    nothing longer than 1 was reduced.
    """
    if call.arguments.get("other") is not None:  # max.other and max.out: the pointwise maximum
        return pointwise(call)
    mask = call.mask("self")
    assert mask is not None
    dims = named_dims(call.arguments.get("dim"), mask.ndim)
    return [reduced_to(mask, dims, out.shape) for out in tensors_of(call.out)]


@rule("aten::cumsum", "aten::cumprod", "aten::logcumsumexp", "aten::_logcumsumexp")
def scan(call: Call) -> Mask:
    """Element i depends on the elements up to i: causal models rely on just this."""
    mask = call.mask("self")
    assert mask is not None
    if mask.ndim == 0:
        return mask
    return np.bitwise_or.accumulate(core(mask), axis=call["dim"] % mask.ndim)


@rule("aten::trace")
def trace(call: Call) -> Mask:
    """The sum of the diagonal."""
    mask = call.mask("self")
    assert mask is not None
    return uniform((), bits(np.diagonal(mask)))


@rule("aten::dist")
def dist(call: Call) -> Mask:
    """The norm of a whole difference."""
    return uniform((), call.bits("self", "other"))


@rule("aten::renorm")
def renorm(call: Call) -> Mask:
    """Each slice along `dim` is divided by its own norm."""
    mask = call.mask("self")
    assert mask is not None
    return spread(mask, all_but(mask.ndim, call["dim"] % mask.ndim))


@rule("aten::_cdist_forward", "aten::_euclidean_dist")
def pairwise(call: Call) -> Mask:
    """The distance of row i of x1 and row j of x2, in broadcast batches."""
    first, second = call.mask("x1"), call.mask("x2")
    assert first is not None
    assert second is not None
    columns = np.swapaxes(spread(second, (-1,)), -1, -2)
    return call.union(tuple(call.out.shape), spread(first, (-1,)), columns)


@rule("aten::_cdist_backward")
def pairwise_backward(call: Call) -> Mask:
    """Row i of x1 moves all distances of row i, and so meets every row of x2."""
    first, second = call.mask("x1"), call.mask("x2")
    grad, distance = call.mask("grad_output"), call.mask("cdist")
    assert first is not None
    assert second is not None
    assert grad is not None
    assert distance is not None
    rows = [spread(mask, (-1,)) for mask in (first, grad, distance)]
    return call.union(tuple(call.out.shape), *rows, spread(second, (-1, -2)))


@rule("aten::_pdist_forward")
def pairs_within(call: Call) -> Mask:
    """The distances of rows i < j, in the order of the upper triangle."""
    mask = call.mask("self")
    assert mask is not None
    rows = np.broadcast_to(spread(mask, (1,)), (mask.shape[0], 1))[:, 0]
    i, j = np.triu_indices(mask.shape[0], 1)
    return rows[i] | rows[j]


@rule("aten::_pdist_backward")
def pairs_within_backward(call: Call) -> Mask:
    """Every row meets every other: all bits everywhere."""
    return uniform(tuple(call.out.shape), call.bits("self", "grad_output", "pdist"))


@rule("aten::equal", "aten::allclose")
def whole_comparison(call: Call) -> None:
    """One Python bool about two whole tensors: control flow, not a tensor."""
    call.escape(call.name, call.bits("self", "other"))
