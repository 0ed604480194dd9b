"""View operators, their copying twins, and operators that change a tensor's geometry in place.

The mask of a view is the same view of the mask; stride-0 dimensions stay stride-0.
"""

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, clean, reduce_or, reshape, spread_or, uniform
from dpnorm.provenance.registry import rule


def own(call: Call) -> Mask:
    """The mask of `self`, which must be there."""
    mask = call.mask("self")
    assert mask is not None
    return mask


@rule(
    "aten::view",
    "aten::view_copy",
    "aten::_unsafe_view",
    "aten::_reshape_alias",
    "aten::_reshape_alias_copy",
    "aten::_reshape_copy",
    "aten::_mkldnn_reshape",
    "aten::unsqueeze",
    "aten::unsqueeze_copy",
    "aten::squeeze",
    "aten::squeeze_copy",
)
def reshaped(call: Call) -> Mask:
    """The same elements in row-major order; a view as another type is cut into bytes anew."""
    if call.func._overloadname in ("dtype", "dtype_out"):
        return _retyped(call)
    return reshape(own(call), tuple(call.out.shape))


def _retyped(call: Call) -> Mask:
    """Elements of another size share bytes with neighbours along the last dimension only."""
    mask, shape = own(call), tuple(call.out.shape)
    if mask.shape == shape and call["self"].element_size() == call.out.element_size():
        return mask
    if 0 in shape:
        return clean(shape)
    return np.broadcast_to(spread_or(mask, -1)[..., :1], shape)


@rule(
    "aten::alias",
    "aten::alias_copy",
    "aten::detach",
    "aten::detach_copy",
    "aten::lift",
    "aten::_conj",
    "aten::_conj_copy",
    "aten::_conj_physical",
    "aten::conj_physical",
    "aten::_neg_view",
    "aten::_neg_view_copy",
    "aten::_lazy_clone",
    "aten::_pin_memory",
    "aten::clone",
)
def same(call: Call) -> Mask:
    """The same elements at the same places."""
    return own(call)


@rule("aten::_fw_primal", "aten::_fw_primal_copy", "aten::_make_dual", "aten::_make_dual_copy")
def dual(call: Call) -> Mask:
    """The primal; a tangent travels with it, so that its bits do too."""
    primal = call.mask("self") if "self" in call.arguments else call.mask("primal")
    return call.union(tuple(call.out.shape), primal, call.mask("tangent"))


@rule("aten::permute", "aten::permute_copy")
def permute(call: Call) -> Mask:
    """Dimensions in another order."""
    mask = own(call)
    return mask.transpose([d % mask.ndim for d in call["dims"]]) if mask.ndim else mask


@rule("aten::transpose", "aten::transpose_copy", "aten::_mkldnn_transpose")
def transpose(call: Call) -> Mask:
    """Two dimensions exchanged."""
    mask = own(call)
    return mask.swapaxes(call["dim0"], call["dim1"]) if mask.ndim else mask


@rule("aten::t", "aten::t_copy", "aten::numpy_T")
def matrix_transpose(call: Call) -> Mask:
    """The transposed matrix; a vector stays as it is."""
    return own(call).T


@rule("aten::expand", "aten::expand_copy")
def expand(call: Call) -> Mask:
    """Each element repeated along new dimensions of stride 0."""
    return np.broadcast_to(own(call), tuple(call.out.shape))


@rule("aten::view_as_real", "aten::view_as_real_copy")
def view_as_real(call: Call) -> Mask:
    """Real and imaginary part along a new last dimension."""
    return np.broadcast_to(own(call)[..., None], tuple(call.out.shape))


@rule("aten::view_as_complex", "aten::view_as_complex_copy")
def view_as_complex(call: Call) -> Mask:
    """Two real elements make a complex one."""
    mask = own(call)
    return reduce_or(mask, -1, keepdim=False)


def cut(ndim: int, dim: int, what: Any) -> tuple[Any, ...]:
    """An index that is `what` along `dim` and everything before it."""
    return (slice(None),) * (dim % ndim) + (what,)


def sliced(call: Call) -> slice:
    """The arguments start, end and step as a slice."""
    return slice(call.arguments.get("start"), call.arguments.get("end"), call["step"])


@rule("aten::select", "aten::select_copy")
def select(call: Call) -> Mask:
    """One position along a dimension."""
    mask = own(call)
    return mask[(*cut(mask.ndim, call["dim"], int(call["index"])), ...)]


@rule("aten::slice", "aten::slice_copy")
def slice_(call: Call) -> Mask:
    """A range along a dimension; Python's clamping of bounds is torch's."""
    mask = own(call)
    return mask[cut(mask.ndim, call["dim"], sliced(call))]


@rule("aten::narrow_copy")
def narrow(call: Call) -> Mask:
    """A range along a dimension, by start and length."""
    mask, start = own(call), int(call["start"])
    start += mask.shape[call["dim"]] if start < 0 else 0
    return mask[cut(mask.ndim, call["dim"], slice(start, start + int(call["length"])))]


@rule(
    "aten::split",
    "aten::split_copy",
    "aten::split_with_sizes",
    "aten::split_with_sizes_copy",
    "aten::unsafe_split",
    "aten::unsafe_split_with_sizes",
    "aten::chunk",
    "aten::unsafe_chunk",
)
def split(call: Call) -> list[Mask] | None:
    """Ranges one behind the other along a dimension, as long as the outputs say."""
    mask, start, pieces = own(call), 0, []
    outputs = call.out if call.out is not None else call.arguments.get("out") or []
    for out in outputs:
        end = start + out.shape[call["dim"]]
        pieces.append(mask[cut(mask.ndim, call["dim"], slice(start, end))])
        start = end
    return _listed(call, pieces)


@rule("aten::unbind", "aten::unbind_copy")
def unbind(call: Call) -> list[Mask] | None:
    """Every position along a dimension by itself."""
    front = np.moveaxis(own(call), call["dim"], 0)
    return _listed(call, [front[i, ...] for i in range(front.shape[0])])


def _listed(call: Call, pieces: list[Mask]) -> list[Mask] | None:
    """The masks, written to `out` where the operator has such a list and returns nothing."""
    if call.out is not None and len(call.out):
        return pieces
    for out, piece in zip(call.arguments.get("out") or [], pieces, strict=False):
        call.write(out, piece)
    return None


@rule("aten::diagonal", "aten::diagonal_copy")
def diagonal(call: Call) -> Mask:
    """The diagonal of two dimensions, as a new last one."""
    return np.diagonal(own(call), call["offset"], call["dim1"], call["dim2"])


@rule("aten::unfold", "aten::unfold_copy")
def unfold(call: Call) -> Mask:
    """Sliding windows along a dimension; what is inside a window is a new last dimension."""
    mask, shape = own(call), tuple(call.out.shape)
    if 0 in shape or mask.ndim == 0:
        return np.broadcast_to(mask, shape)
    axis = call["dimension"] % mask.ndim
    windows = sliding_window_view(mask, call["size"], axis=axis)
    return windows[cut(mask.ndim, axis, slice(None, None, call["step"]))]


@rule(
    "aten::as_strided",
    "aten::as_strided_",
    "aten::slice_inverse",
    "aten::squeeze_",
    "aten::unsqueeze_",
    "aten::transpose_",
    "aten::t_",
    "aten::_mkldnn_transpose_",
    "aten::detach_",
    "aten::resize_",
    "aten::resize_as_",
    "aten::_resize_output_",
    "aten::set_",
)
def by_storage(call: Call) -> None:
    """Another geometry of a storage: the table reads the mask of such a tensor from it."""


@rule("aten::as_strided_copy")
def as_strided_copy(call: Call) -> Mask:
    """A copy of any elements of the storage, those outside of `self` too."""
    view = torch.as_strided(call["self"], call["size"], call["stride"], call["storage_offset"])
    return call._tracer.table.read(view)


@rule("aten::as_strided_scatter")
def as_strided_scatter(call: Call) -> Mask:
    """`self` with `src` written somewhere."""
    shape = tuple(call.out.shape)
    return call.union(shape, own(call), uniform(shape, call.bits("src")))
