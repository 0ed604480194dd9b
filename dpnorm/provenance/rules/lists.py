"""The _foreach operators: one pointwise operator on each tensor of a list."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import whole
from dpnorm.provenance.masks import Mask, clean, union
from dpnorm.provenance.registry import rule

_PREFIX = "aten::_foreach_"
_REDUCTIONS = {"norm", "max", "powsum"}


def _names() -> list[str]:
    """Every pointwise _foreach operator of this torch, without the in-place and out= twins."""
    found = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    found.discard("aten::_foreach_mm")  # a product: with the other products
    return sorted(n for n in found if n.startswith(_PREFIX) and not n.endswith("_"))


@rule(*_names())
def foreach(call: Call) -> list[Mask] | None:
    """Tensor i of every list goes into result i, and single tensors into all of them."""
    kind = call.name.removeprefix(_PREFIX).rstrip("_")
    lists = [
        value
        for name, value in call.arguments.items()
        if name != "out" and isinstance(value, (list, tuple)) and _holds_tensors(value)
    ]
    if kind == "copy":
        lists = [call["src"]]
    single = [value for value in call.arguments.values() if isinstance(value, Tensor)]
    shared = whole(call, *single)
    targets = call.out or call.arguments.get("out") or call["self"]
    masks = []
    for position, target in enumerate(targets):
        shape = tuple(target.shape)
        if kind == "zero":
            masks.append(clean(shape))
            continue
        items = [listed[position] for listed in lists]
        if kind in _REDUCTIONS:
            masks.append(np.broadcast_to(whole(call, *items) | shared, shape))
        else:
            own = [mask for mask in map(call.mask, items) if mask is not None]
            masks.append(union(shape, [*own, shared]))
    if call.out:
        return masks
    if _entangled(targets, lists):
        masks = [np.broadcast_to(whole(call, *call.inputs()), t.shape) for t in targets]
    for target, mask in zip(targets, masks, strict=True):
        call.write(target, mask)
    return None


def _holds_tensors(value: list[object] | tuple[object, ...]) -> bool:
    return bool(value) and all(isinstance(item, Tensor) for item in value)


def _entangled(targets: Sequence[Tensor], lists: Sequence[Sequence[Tensor]]) -> bool:
    """Whether writing one result changes what another one is made of."""
    written = [target.untyped_storage()._cdata for target in targets]
    if len(set(written)) < len(written):
        return True
    return any(
        item.untyped_storage()._cdata in written
        and item.untyped_storage()._cdata != written[position]
        for listed in lists
        for position, item in enumerate(listed)
    )
