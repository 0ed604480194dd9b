"""Shapes and Python values that depend on data: nonzero, unique, bincount, item, assertions.

What decides a shape taints every element of the result and everything built from its size, which
the tracer cannot see: it is reported as an escape.
"""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


@rule(
    "aten::nonzero",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::unique_dim_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
)
def sized_by_data(call: Call) -> Mask:
    """All bits everywhere, and an escape."""
    found = call.all_bits()
    call.escape("a data-dependent shape", found)
    return np.asarray(np.uint8(found))


@rule("aten::nonzero_static")
def nonzero_static(call: Call) -> Mask:
    """Coordinates in order: each depends on all elements before; the shape does not."""
    return np.asarray(np.uint8(call.bits("self")))


@rule("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero")
def item(call: Call) -> None:
    """A tensor becomes a Python number."""
    call.escape("item()", call.bits("self"))


@rule(
    "aten::_assert_async",
    "aten::_assert_scalar",
    "aten::_functional_assert_async",
    "aten::_functional_assert_scalar",
    "aten::_assert_tensor",
)
def asserted(call: Call) -> Mask | None:
    """Whether the program goes on depends on a value."""
    found = call.all_bits()
    call.escape("an assertion", found)
    return np.asarray(np.uint8(found)) if call.out is not None else None


@rule(
    "aten::_assert_tensor_metadata",
    "aten::is_same_size",
    "aten::is_pinned",
    "aten::is_set_to",
    "aten::_has_same_storage_numel",
    "aten::record_stream",
    "aten::dense_dim",
    "aten::sparse_dim",
    "aten::_version",
    "aten::is_coalesced",
)
def metadata(call: Call) -> None:
    """Shapes, types and places only."""


@rule("aten::_unsafe_masked_index", "aten::_unsafe_masked_index_put_accumulate")
def masked_index(call: Call) -> Mask:
    """What compiled code makes of an index: coarse, all bits everywhere."""
    own(call)
    return np.asarray(np.uint8(call.all_bits()))
