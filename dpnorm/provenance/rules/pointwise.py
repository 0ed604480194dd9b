"""Operators whose output element depends on the input elements at the same place."""

from dpnorm.provenance.call import Call, tensors_of
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.registry import rule


def pointwise(call: Call) -> Mask:
    """OR of all tensor arguments, broadcast; the rule of every operator that torch tags so."""
    read = tensors_of([call[name] for name in call.read_arguments()])
    return call.union(_shape(call), *[call.mask(tensor) for tensor in read])


def _shape(call: Call) -> tuple[int, ...]:
    out = call.out[0] if isinstance(call.out, (tuple, list)) else call.out
    return tuple(out.shape)


@rule(
    "aten::_to_copy",
    "aten::lift_fresh",
    "aten::lift_fresh_copy",
    "aten::hardswish_backward",
    "aten::_prelu_kernel",
    "aten::_prelu_kernel_backward",
)
def like_pointwise(call: Call) -> Mask:
    """Pointwise operators without the tag."""
    return pointwise(call)


@rule("aten::copy")
def copy(call: Call) -> Mask:
    """The destination holds the source, broadcast; what it held is gone."""
    mask = call.mask("src")
    assert mask is not None
    return mask


@rule("aten::fill", "aten::zero")
def fill(call: Call) -> Mask:
    """The destination holds the value; what it held is gone."""
    value = call.arguments.get("value")
    shape = tuple(call["self"].shape)
    return call.union(shape, call.mask(value) if hasattr(value, "shape") else None)
