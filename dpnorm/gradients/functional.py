"""A gradient a record for any module, by running it on one record at a time."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dpnorm.gradients.rows import Rows


def functional_gradients(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradient: Tensor,
    records: int,
    rows: Rows,
    output: int = 0,
    *,
    buffers: Mapping[str, Tensor] | None = None,
    reset: Callable[[], None] = lambda: None,
) -> dict[nn.Parameter, Tensor]:
    """The gradient of each record for every trainable parameter of a module: (records, *shape).

    The module runs again on the rows of one record, with its parameters as arguments and its
    buffers as constants, under `torch.func.vmap`; where an operator has no batching rule, or
    draws at random, in a loop over the records.

    Args:
        module: that ran; its hooks run again as well.
        args: its arguments in the forward pass; tensors are (rows, ...) or shared.
        kwargs: its keyword arguments, likewise.
        gradient: (rows, ...), of the loss with respect to its output.
        records: how many.
        rows: which row belongs to which record.
        output: which of the output tensors that have a dimension.
        buffers: as they were before the forward pass; default as they are. They are not written.
        reset: called before each run, to put back what the module keeps in Python.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    constant = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    state = dict(module.named_buffers()) if buffers is None else buffers
    flat, rebuild = _split((args, kwargs))
    by_record = [not rows.is_shared(i) for i in range(len(flat))]
    flat = [
        rows.grouped(t, records) if mine else t for t, mine in zip(flat, by_record, strict=True)
    ]

    def objective(parameters: dict[str, Tensor], backprop: Tensor, *tensors: Tensor) -> Tensor:
        reset()
        own_args, own_kwargs = rebuild(tensors)
        fresh = constant | {name: buffer.clone() for name, buffer in state.items()}
        out = functional_call(module, (parameters, fresh), own_args, own_kwargs)
        return (_tensors(out)[output] * backprop).sum()

    values = {name: p.detach() for name, p in trainable.items()}
    backprops = rows.grouped(gradient, records)
    where = (None, 0, *[0 if mine else None for mine in by_record])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            found = vmap(grad(objective), in_dims=where)(values, backprops, *flat)
    except (RuntimeError, NotImplementedError):
        found = _one_by_one(objective, values, backprops, flat, by_record)
    return {trainable[name]: found[name] for name in trainable}


def _one_by_one(
    objective: Any,
    values: dict[str, Tensor],
    backprops: Tensor,
    flat: list[Tensor],
    by_record: list[bool],
) -> dict[str, Tensor]:
    each = []
    for record, backprop in enumerate(backprops):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        own = [t[record] if mine else t for t, mine in zip(flat, by_record, strict=True)]
        with torch.enable_grad():
            total = objective(leaves, backprop, *own)
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        each.append(
            [
                torch.zeros_like(leaf) if g is None else g
                for g, leaf in zip(found, leaves.values(), strict=True)
            ]
        )
    return {
        name: torch.stack([gradients[i] for gradients in each]) for i, name in enumerate(values)
    }


def _split(value: Any) -> tuple[list[Tensor], Any]:
    """The tensors of nested arguments, detached, and a function that puts others in their place."""
    leaves, structure = torch.utils._pytree.tree_flatten(value)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def rebuild(tensors: Any) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return torch.utils._pytree.tree_unflatten(filled, structure)

    return [leaves[place].detach() for place in places], rebuild


def _tensors(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
