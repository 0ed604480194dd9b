"""Selecting and writing along one dimension: gather, scatter, index_select, index_add and kin."""

import numpy as np
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import collect, constant_values, take, whole
from dpnorm.provenance.masks import Mask, bits, clean, core, reduce_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


def _line(call: Call, argument: str, mask: Mask) -> tuple[np.ndarray | None, Mask]:
    """A vector of indices: its values if known (wrapped to be positive), and its mask."""
    index = call[argument]
    index_mask = call.mask(index)
    assert index_mask is not None
    values = constant_values(call, index)
    if values is not None:
        size = max(mask.shape[call["dim"]], 1) if mask.ndim else 1
        values = np.where(values < 0, values + size, values).reshape(-1)
    return values, index_mask.reshape(-1)


def _along(line: Mask, dim: int, ndim: int) -> Mask:
    shape = [1] * ndim
    shape[dim] = line.size
    return line.reshape(shape)


@rule("aten::index_select")
def index_select(call: Call) -> Mask:
    """Known lines exactly; otherwise any line."""
    mask, shape = own(call), tuple(call.out.shape)
    if mask.ndim == 0 or 0 in shape:
        return np.broadcast_to(whole(call, "self", "index"), shape)
    values, line = _line(call, "index", mask)
    if values is not None:
        return take(mask, call["dim"], values)
    where = _along(line, call["dim"], mask.ndim)
    return union(shape, [reduce_or(mask, call["dim"]), where])


@rule("aten::index_add", "aten::index_copy", "aten::index_fill", "aten::index_reduce")
def index_write(call: Call) -> Mask:
    """Lines are added to or replaced."""
    mask = own(call)
    source = call.arguments.get("source", call.arguments.get("value"))
    if mask.ndim == 0 or mask.size == 0:
        return np.broadcast_to(np.uint8(call.all_bits()), mask.shape)
    values, line = _line(call, "index", mask)
    dim = call["dim"] % mask.ndim
    shape = tuple(line.size if d == dim else n for d, n in enumerate(mask.shape))
    given = call.mask(source) if isinstance(source, Tensor) else clean(())
    assert given is not None
    fresh = union(shape, [given, _along(line, dim, mask.ndim)])
    if values is None:
        return union(mask.shape, [mask, reduce_or(fresh, dim)])
    placed = collect(fresh, dim, values, mask.shape[dim])
    if call.name.rstrip("_") in ("aten::index_copy", "aten::index_fill"):
        hit = np.zeros(mask.shape[dim], np.bool_)
        hit[values] = True
        mask = np.broadcast_to(
            np.where(_along(hit, dim, mask.ndim), np.uint8(0), core(mask)), mask.shape
        )
    return union(mask.shape, [mask, placed])


def _corner(mask: Mask, shape: tuple[int, ...], dim: int) -> Mask:
    """The part of a mask that an index tensor reaches: its extent in all dimensions but `dim`."""
    cuts = [slice(None) if d == dim else slice(0, size) for d, size in enumerate(shape)]
    return mask[tuple(cuts)]


@rule("aten::gather")
def gather(call: Call) -> Mask:
    """Known places exactly; otherwise any place of the line, and the index's own bits."""
    mask, index_mask, shape = own(call), call.mask("index"), tuple(call.out.shape)
    assert index_mask is not None
    if 0 in shape:
        return clean(shape)
    if mask.ndim == 0 or not shape:
        return np.broadcast_to(whole(call, "self", "index"), shape)
    dim = call["dim"] % mask.ndim
    part = _corner(mask, shape, dim)
    values = constant_values(call, call["index"])
    if values is None or core(part).shape[dim] == 1:
        return union(shape, [reduce_or(part, dim), index_mask])
    wide = np.broadcast_to(part, [n if d != dim else part.shape[d] for d, n in enumerate(shape)])
    return np.take_along_axis(wide, values.astype(np.intp), axis=dim)


@rule("aten::scatter", "aten::scatter_add", "aten::scatter_reduce")
def scatter(call: Call) -> Mask:
    """Known places get the source's bits; otherwise any place of the line may."""
    mask, index_mask = own(call), call.mask("index")
    source = call.arguments.get("src", call.arguments.get("value"))
    assert index_mask is not None
    if 0 in index_mask.shape or mask.size == 0:
        return mask
    if mask.ndim == 0 or index_mask.ndim == 0:
        return np.broadcast_to(np.uint8(call.all_bits()), mask.shape)
    dim, shape = call["dim"] % mask.ndim, index_mask.shape
    fresh = index_mask
    if isinstance(source, Tensor):
        given = call.mask(source)
        assert given is not None
        reached = given[tuple(slice(0, n) for n in shape)] if given.ndim else given
        fresh = union(shape, [reached, index_mask])
    values = constant_values(call, call["index"])
    if values is None:
        placed = reduce_or(fresh, dim)
        return _joined(mask, placed, shape, dim)
    grid = list(np.ogrid[tuple(slice(0, n) for n in shape)])
    grid[dim] = values.astype(np.intp)
    replaces = call.name.startswith("aten::scatter") and call.arguments.get("reduce") is None
    replaces = replaces and "scatter_add" not in call.name
    if not bits(fresh) and not (replaces and bits(mask)):
        return mask
    result = mask.copy()
    if replaces:
        result[tuple(grid)] = 0
    np.bitwise_or.at(result, tuple(grid), fresh)
    return result


def _joined(mask: Mask, placed: Mask, shape: tuple[int, ...], dim: int) -> Mask:
    """OR of lines into the corner that the index reaches."""
    if all(d == dim or n == mask.shape[d] for d, n in enumerate(shape)):
        return union(mask.shape, [mask, placed])
    result = mask.copy()
    result[tuple(slice(None) if d == dim else slice(0, n) for d, n in enumerate(shape))] |= placed
    return result


@rule("aten::masked_fill")
def masked_fill(call: Call) -> Mask:
    """Pointwise: the tensor, the condition and the value."""
    value = call["value"]
    value_mask = call.mask(value) if isinstance(value, Tensor) else None
    return call.union(tuple(call.out.shape), own(call), call.mask("mask"), value_mask)


@rule("aten::masked_select")
def masked_select(call: Call) -> Mask:
    """A condition with bits decides the shape, and so taints all."""
    condition = constant_values(call, call["mask"])
    mask, where = own(call), call.mask("mask")
    assert where is not None
    if condition is None:
        call.escape("a data-dependent shape", bits(where))
        return np.broadcast_to(whole(call, "self", "mask"), tuple(call.out.shape))
    full = np.broadcast_shapes(mask.shape, condition.shape)
    return np.broadcast_to(mask, full)[np.broadcast_to(condition, full)]


@rule("aten::masked_scatter")
def masked_scatter(call: Call) -> Mask:
    """Chosen places take the source in order: which one depends on all places before."""
    mask, source = own(call), call.mask("source")
    condition = constant_values(call, call["mask"])
    assert source is not None
    shape = tuple(call.out.shape)
    if condition is None:
        return union(shape, [mask, whole(call, "source", "mask")])
    chosen = np.broadcast_to(condition, shape)
    result = np.broadcast_to(mask, shape).copy()
    result[chosen] = source.reshape(-1)[: int(chosen.sum())]
    return result


@rule("aten::masked_scatter_backward")
def masked_scatter_backward(call: Call) -> Mask:
    """The gradients of the chosen places in order, then zeros."""
    grad, shape = call.mask("grad_output"), tuple(call.out.shape)
    condition = constant_values(call, call["mask"])
    assert grad is not None
    if condition is None:
        return np.broadcast_to(whole(call, "grad_output", "mask"), shape)
    full = np.broadcast_shapes(grad.shape, condition.shape)
    taken = np.broadcast_to(grad, full)[np.broadcast_to(condition, full)]
    result = np.zeros(int(np.prod(shape, dtype=np.int64)), np.uint8)
    taken = taken[: result.size]
    result[: taken.size] = taken
    return result.reshape(shape)
