"""Matrix products: an element sees its row of the left matrix and its column of the right one.

out[m, n] = OR over k of A[m, k] | B[k, n]. Nothing else of A and B enters, so records may be rows,
columns or matrices of a batch and stay apart.
"""

from collections.abc import Sequence

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, reduce_or, union
from dpnorm.provenance.registry import rule


def known(call: Call, argument: str) -> Mask:
    """The mask of an argument that cannot be absent."""
    mask = call.mask(argument)
    assert mask is not None
    return mask


def product(left: Mask, right: Mask) -> Mask:
    """The mask of left @ right for two matrices or two batches of them."""
    rows, columns = reduce_or(left, -1), reduce_or(right, -2)
    return union(np.broadcast_shapes(rows.shape, columns.shape), [rows, columns])


def flattened(mask: Mask) -> Mask:
    """OR over every dimension but the last."""
    return reduce_or(mask, range(mask.ndim - 1), keepdim=False)


def present(call: Call, masks: Sequence[Mask]) -> list[Mask]:
    """The masks of those outputs that the operator returned; None is not a tensor."""
    return [mask for mask, out in zip(masks, call.out, strict=True) if out is not None]


def _plus(call: Call, *masks: Mask) -> Mask:
    """OR of the summands and of `self`, which beta = 0 leaves out without reading it."""
    own = () if call.arguments.get("beta", 1) == 0 else (known(call, "self"),)
    return union(tuple(call.out.shape), [*own, *masks])


@rule("aten::mm", "aten::bmm", "aten::_int_mm")
def mm(call: Call) -> Mask:
    """A product of two matrices, or of two batches matrix by matrix."""
    return product(known(call, "self"), known(call, "mat2"))


@rule("aten::_foreach_mm")
def foreach_mm(call: Call) -> list[Mask]:
    """One product for each pair."""
    pairs = [(call.mask(a), call.mask(b)) for a, b in zip(call["self"], call["mat2"], strict=True)]
    return [product(a, b) for a, b in pairs if a is not None and b is not None]


@rule("aten::addmm", "aten::_addmm_activation")
def addmm(call: Call) -> Mask:
    """A product plus a matrix that broadcasts to it."""
    return _plus(call, product(known(call, "mat1"), known(call, "mat2")))


@rule("aten::baddbmm")
def baddbmm(call: Call) -> Mask:
    """A batch of products plus a batch of matrices."""
    return _plus(call, product(known(call, "batch1"), known(call, "batch2")))


@rule("aten::addbmm")
def addbmm(call: Call) -> Mask:
    """The sum of a batch of products: the batch is reduced as well."""
    total = product(known(call, "batch1"), known(call, "batch2"))
    return _plus(call, reduce_or(total, 0, keepdim=False))


@rule("aten::mv")
def mv(call: Call) -> Mask:
    """A matrix times a vector: all of the vector enters each element."""
    rows = reduce_or(known(call, "self"), -1, keepdim=False)
    return rows | np.uint8(call.bits("vec"))


@rule("aten::addmv")
def addmv(call: Call) -> Mask:
    """A matrix times a vector, plus a vector."""
    rows = reduce_or(known(call, "mat"), -1, keepdim=False)
    return _plus(call, rows | np.uint8(call.bits("vec")))


@rule("aten::addr")
def addr(call: Call) -> Mask:
    """An outer product plus a matrix: element (m, n) sees element m and element n."""
    return _plus(call, known(call, "vec1")[:, None], known(call, "vec2")[None, :])


@rule("aten::outer", "aten::ger")
def outer(call: Call) -> Mask:
    """An outer product, where it appears undecomposed."""
    return union(
        tuple(call.out.shape), [known(call, "self")[:, None], known(call, "vec2")[None, :]]
    )


@rule("aten::dot", "aten::vdot")
def dot(call: Call) -> Mask:
    """A scalar that sees all of both vectors."""
    return np.asarray(call.all_bits(), np.uint8)


@rule("aten::matmul", "aten::linalg_matmul")
def matmul(call: Call) -> Mask:
    """The product of vectors, matrices or batches, where it appears undecomposed (inference)."""
    left, right = known(call, "self"), known(call, "other")
    result = product(
        left[None, :] if left.ndim == 1 else left, right[:, None] if right.ndim == 1 else right
    )
    if left.ndim == 1:
        result = result[..., 0, :]
    return result[..., 0] if right.ndim == 1 else result


@rule(
    "aten::matmul_backward",
    "aten::_grouped_mm",
    "aten::_scaled_grouped_mm",
    "aten::_scaled_grouped_mm_v2",
    "aten::_scaled_mm_v2",
    "aten::_convert_weight_to_int4pack",
    "aten::_convert_weight_to_int4pack_for_cpu",
)
def all_of_it(call: Call) -> list[Mask]:
    """Layouts that the arguments do not tell, such as groups given by offsets: all see all."""
    outputs = call.out if isinstance(call.out, (tuple, list)) else [call.out]
    return [np.asarray(call.all_bits(), np.uint8) for out in outputs if out is not None]


@rule("aten::linear", "aten::mkldnn_linear")
def linear(call: Call) -> Mask:
    """input @ weight^T + bias, where it appears undecomposed (inference)."""
    given = call.arguments.get("input")
    rows = reduce_or(known(call, "self" if given is None else "input"), -1)
    weight = reduce_or(known(call, "weight"), -1, keepdim=False)
    if weight.ndim == 0:
        rows = rows[..., 0]
    return call.union(tuple(call.out.shape), rows, weight, call.mask("bias"))


@rule("aten::linear_backward", "aten::mkldnn_linear_backward")
def linear_backward(call: Call) -> list[Mask]:
    """Gradients of input (row by row), weight and bias (over all rows)."""
    grad = known(call, "grad_output")
    return present(
        call,
        [
            product(grad, known(call, "weight")),
            flattened(grad)[:, None] | flattened(known(call, "self"))[None, :],
            flattened(grad),
        ],
    )


@rule("aten::mkldnn_linear_backward_input")
def linear_backward_input(call: Call) -> Mask:
    """The gradient of the input, row by row."""
    return product(known(call, "grad_output"), known(call, "weight"))


@rule("aten::mkldnn_linear_backward_weights")
def linear_backward_weights(call: Call) -> list[Mask]:
    """The gradients of weight and bias, over all rows."""
    grad = flattened(known(call, "grad_output"))
    return present(call, [grad[:, None] | flattened(known(call, "input"))[None, :], grad])


@rule("aten::_trilinear")
def trilinear(call: Call) -> Mask:
    """The sum over `sumdim` of i1 * i2 * i3, each with new dimensions of length 1."""
    masks = []
    for name, expand in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        mask = known(call, name)
        for dim in call[expand]:
            mask = np.expand_dims(mask, dim)
        masks.append(mask)
    full = union(np.broadcast_shapes(*[mask.shape for mask in masks]), masks)
    return reduce_or(full, call["sumdim"], keepdim=False) if call["sumdim"] else full


@rule("aten::_scaled_mm")
def scaled_mm(call: Call) -> Mask:
    """A product of 8-bit matrices with scales for the whole, the rows or (coarsely) blocks."""
    result = product(known(call, "self"), known(call, "mat2"))
    m, n = result.shape
    rows, columns = known(call, "scale_a"), known(call, "scale_b")
    rows = rows if rows.shape == (m, 1) else np.asarray(bits(rows), np.uint8)
    columns = columns if columns.shape == (1, n) else np.asarray(bits(columns), np.uint8)
    rest = np.asarray(call.bits("scale_result"), np.uint8)
    return call.union((m, n), result, rows, columns, call.mask("bias"), rest)


@rule(
    "aten::_weight_int4pack_mm",
    "aten::_weight_int4pack_mm_for_cpu",
    "aten::_weight_int4pack_mm_with_scales_and_zeros",
    "aten::_weight_int8pack_mm",
)
def packed_mm(call: Call) -> Mask:
    """Rows times packed weights, whose layout is the kernel's own: all of them enter each row."""
    rest = [tensor for tensor in call.inputs() if tensor is not call["self"]]
    return reduce_or(known(call, "self"), -1) | np.uint8(call.bits(*rest))
