"""Indexing by tensors: x[i, j], its in-place twin, and what is built on them.

An index without bits selects known places, so that the mask is indexed by its values. An index
with bits could select any place along its dimension: OR over all of them, plus the index's bits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import constant_values, scalar, whole
from dpnorm.provenance.masks import Mask, bits, clean, core, reduce_or, reshape, spread_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


@dataclass(frozen=True)
class Selection:
    """A list of index tensors, one for each indexed dimension.

    Attributes:
        dims: the indexed dimensions.
        places: what is selected along each, an integer array; None where it is not known.
        masks: of the index tensors, shaped as they are.
        unknown_count: bits of boolean indices, which decide how much is selected.
    """

    dims: tuple[int, ...]
    places: tuple[np.ndarray | None, ...]
    masks: tuple[Mask, ...]
    unknown_count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape of the indices."""
        return np.broadcast_shapes(*[mask.shape for mask in self.masks])

    @property
    def position(self) -> int:
        """Where the indices' dimensions stand in the result: together if they stand together."""
        first, last = self.dims[0], self.dims[-1]
        return first if last - first + 1 == len(self.dims) else 0

    def known(self, mask: Mask) -> tuple[int, ...]:
        """The indexed dimensions whose places are known and matter to a mask."""
        return tuple(
            dim
            for dim, places in zip(self.dims, self.places, strict=True)
            if places is not None and mask.shape[dim] > 1
        )


def selection(call: Call, indices: list[Tensor | None]) -> Selection:
    """Reads the index tensors; a known boolean one becomes the integers that it selects."""
    dims: list[int] = []
    places: list[np.ndarray | None] = []
    masks: list[Mask] = []
    unknown, dim = 0, 0
    for index in indices:
        if index is None:
            dim += 1
            continue
        mask, values = call.mask(index), constant_values(call, index)
        assert mask is not None
        if index.dtype in (torch.bool, torch.uint8):
            selected = [None] * index.dim() if values is None else list(np.nonzero(values))
            if values is None:
                unknown |= bits(mask)
            for chosen in selected:
                dims.append(dim)
                places.append(chosen)
                length = 1 if chosen is None else len(chosen)
                masks.append(np.broadcast_to(np.uint8(bits(mask)), (length,)))
                dim += 1
        else:
            dims.append(dim)
            places.append(values)
            masks.append(mask)
            dim += 1
    return Selection(tuple(dims), tuple(places), tuple(masks), unknown)


def _placed(mask: Mask, chosen: Selection, ndim: int) -> Mask:
    """A mask shaped as the indices, with dimensions of length 1 for what is not indexed."""
    mask = mask.reshape((1,) * (len(chosen.shape) - mask.ndim) + mask.shape)
    behind = ndim - len(chosen.dims) - chosen.position
    return mask.reshape((1,) * chosen.position + mask.shape + (1,) * behind)


def selected(mask: Mask, chosen: Selection, shape: tuple[int, ...]) -> Mask:
    """The mask of `tensor[indices]`."""
    if 0 in shape:
        return clean(shape)
    for dim, places in zip(chosen.dims, chosen.places, strict=True):
        if places is None:
            mask = spread_or(mask, dim)
    small = core(mask)
    known, rank = chosen.known(small), len(chosen.shape)
    key: list[slice | np.ndarray] = [slice(None)] * small.ndim
    for dim, places in zip(chosen.dims, chosen.places, strict=True):
        array = places if dim in known and places is not None else np.zeros(1, np.intp)
        key[dim] = array.reshape((1,) * (rank - array.ndim) + array.shape)
    index_masks = [_placed(m, chosen, mask.ndim) for m in chosen.masks]
    return union(shape, [small[tuple(key)], *index_masks])


@rule("aten::index", "aten::_unsafe_index")
def index(call: Call) -> Mask:
    """Known places exactly; a boolean index with bits decides the shape, and so taints all."""
    mask, chosen = own(call), selection(call, call["indices"])
    if not chosen.dims:
        return mask
    shape = tuple(call.out.shape)
    if not chosen.unknown_count:
        return selected(mask, chosen, shape)
    call.escape("a data-dependent shape", chosen.unknown_count)
    lines = reduce_or(mask, chosen.dims, keepdim=False)
    lines = lines.reshape(
        lines.shape[: chosen.position] + (1,) * len(chosen.shape) + lines.shape[chosen.position :]
    )
    return union(shape, [lines, *[scalar(m) for m in chosen.masks]])


def written(mask: Mask, chosen: Selection, values: Mask, *, accumulate: bool) -> Mask:
    """The mask of a tensor after `tensor[indices] = values`."""
    small = core(mask)
    rank = len(chosen.shape)
    rest = [d for d in range(mask.ndim) if d not in chosen.dims]
    parts = [values, *[_placed(m, chosen, mask.ndim) for m in chosen.masks]]
    front = chosen.position
    full = (
        *[mask.shape[d] for d in rest[:front]],
        *chosen.shape,
        *[mask.shape[d] for d in rest[front:]],
    )
    if 0 in full or 0 in mask.shape:
        return mask
    fresh = core(union(full, parts))
    fresh = np.broadcast_to(
        fresh, (*fresh.shape[:front], *chosen.shape, *fresh.shape[front + rank :])
    )
    fresh = np.moveaxis(fresh, range(front, front + rank), range(rank))  # indices first
    known = [(d, p) for d, p in zip(chosen.dims, chosen.places, strict=True) if p is not None]
    fresh_rest = fresh.shape[rank:]
    if not known:
        total = np.bitwise_or.reduce(fresh.reshape(-1, *fresh_rest), axis=0)
        placed = total.reshape(_with_ones(fresh_rest, rest, mask.ndim))
        return union(mask.shape, [mask, placed])
    target = np.zeros((*[mask.shape[d] for d, _ in known], *fresh_rest), np.uint8)
    key = tuple(np.broadcast_to(p, chosen.shape) for _, p in known)
    np.bitwise_or.at(target, key, fresh)
    placed = _restored(target, [d for d, _ in known], rest, mask.ndim)
    if accumulate or len(known) < len(chosen.dims) or not small.any():
        return union(mask.shape, [mask, placed])
    hit = np.zeros((*[mask.shape[d] for d, _ in known], *(1,) * len(rest)), np.bool_)
    hit[key] = True
    kept = np.where(_restored(hit, [d for d, _ in known], rest, mask.ndim), np.uint8(0), small)
    return union(mask.shape, [kept, placed])


def _with_ones(sizes: tuple[int, ...], rest: list[int], ndim: int) -> tuple[int, ...]:
    shape = [1] * ndim
    for d, size in zip(rest, sizes, strict=True):
        shape[d] = size
    return tuple(shape)


def _restored(array: np.ndarray, known: list[int], rest: list[int], ndim: int) -> np.ndarray:
    """Dimensions (known..., rest...) back in their places, 1 for those that are neither."""
    order = [*known, *rest]
    shape = [1] * ndim
    for d, size in zip(order, array.shape, strict=True):
        shape[d] = size
    return array.transpose(np.argsort(order)).reshape(shape)


@rule("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put")
def index_put(call: Call) -> Mask:
    """Known places get the values' bits; with an unknown index any place along it may."""
    mask, values, chosen = own(call), call.mask("values"), selection(call, call["indices"])
    assert values is not None
    if not chosen.dims:
        return union(mask.shape, [mask, values])
    if not chosen.unknown_count:
        return written(mask, chosen, values, accumulate=call["accumulate"])
    present = [i for i in call["indices"] if i is not None]
    if values.size == 1 and len(present) == 1:  # x[condition] = constant: as masked_fill
        condition = call.mask(present[0])
        assert condition is not None
        front, behind = chosen.dims[0], mask.ndim - chosen.dims[-1] - 1
        condition = condition.reshape((1,) * front + condition.shape + (1,) * behind)
        return union(mask.shape, [mask, condition, scalar(values)])
    call.escape("a data-dependent shape", chosen.unknown_count)
    return union(mask.shape, [mask, whole(call, "values", *present)])


@rule("aten::embedding")
def embedding(call: Call) -> Mask:
    """Rows of a table: weight[indices]."""
    weight, indices = call.mask("weight"), call["indices"]
    assert weight is not None
    return selected(weight, selection(call, [indices]), tuple(call.out.shape))


@rule("aten::embedding_dense_backward")
def embedding_backward(call: Call) -> Mask:
    """Row i of the table collects the gradients of all places that looked it up."""
    grad, shape = call.mask("grad_output"), tuple(call.out.shape)
    assert grad is not None
    return written(clean(shape), selection(call, [call["indices"]]), grad, accumulate=True)


@rule("aten::embedding_renorm")
def embedding_renorm(call: Call) -> Mask:
    """Rows that are looked up are rescaled: which ones depends on the indices."""
    mask = own(call)
    return union(mask.shape, [spread_or(mask, -1), whole(call, "indices")])


@rule("aten::take")
def take_flat(call: Call) -> Mask:
    """Places of the flattened tensor."""
    mask = own(call)
    return selected(
        reshape(mask, (mask.size,)), selection(call, [call["index"]]), tuple(call.out.shape)
    )


@rule("aten::put")
def put_flat(call: Call) -> Mask:
    """Places of the flattened tensor are written."""
    mask, source, index_mask = own(call), call.mask("source"), call.mask("index")
    assert source is not None
    assert index_mask is not None
    flat = written(
        reshape(mask, (mask.size,)),
        selection(call, [call["index"]]),
        reshape(source, index_mask.shape),
        accumulate=call["accumulate"],
    )
    return reshape(flat, mask.shape)
