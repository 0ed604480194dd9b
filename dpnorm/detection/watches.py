"""Hooks that read masks at the modules of a model while it is traced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from dpnorm.detection.inputs import tensors_in
from dpnorm.detection.isolation import Isolation, ModuleCall
from dpnorm.detection.layout import Layout
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.sampled import observed_modules
from dpnorm.detection.swap import moved_by_others
from dpnorm.provenance import Mask, RecordTracer
from dpnorm.provenance.masks import bits, uniform
from dpnorm.provenance.tracer import location


def read_gradient(
    tensor: Tensor, into: list[Mask], tracer: RecordTracer, result: Isolation
) -> None:
    """Keeps the mask of a tensor's gradient once the backward pass comes to it.

    The hook of a view is not reached once the view was written in place: the gradient is then read
    at what it is a view of, which has what else came of that too.
    """

    def read(gradient: Tensor) -> None:
        with tracer.quietly():
            into.append(tracer.table.read(gradient))

    tensor.register_hook(read)
    base = tensor._base
    if base is None or not base.requires_grad or base.is_leaf:  # views of leaves are not written
        return
    storage = base.untyped_storage()._cdata
    writes = result.writes[storage]
    own, whole = Layout.of(tensor), Layout.of(base)

    def read_through(gradient: Tensor) -> None:
        if result.writes[storage] > writes:
            with tracer.quietly():
                mask = tracer.table.read(gradient)
                places = own.places_in(whole)
                if places is None:  # any number of the view is any of the base
                    into.append(uniform(own.shape, bits(mask)))
                else:
                    into.append(np.ascontiguousarray(mask).reshape(-1)[places])

    base.register_hook(read_through)


def gradients_reader(
    name: str, tracer: RecordTracer, result: Isolation
) -> Callable[[Sequence[Tensor | None]], None]:
    """A hook of a node that keeps the masks of the gradients that come to it."""

    def read(gradients: Sequence[Tensor | None]) -> None:
        with tracer.quietly():
            masks = [tracer.table.read(g) for g in gradients if g is not None]
        result.exposed += [(name, mask) for mask in masks]

    return read


@contextmanager
def module_hooks(
    model: nn.Module, tracer: RecordTracer, result: Isolation, seed: int
) -> Iterator[None]:
    """Tells the tracer which module runs, and reads masks at the sampled ones."""
    sampled = observed_modules(model).keys()
    owners = {id(m) for m in model.modules() if _owns_trainable(m)}
    containers = {
        id(m)
        for m in model.modules()
        if id(m) not in sampled | owners and any(id(inside) in owners for inside in m.modules())
    }
    watched = sampled | owners | containers
    handles = []

    def watch(path: str, module: nn.Module) -> None:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            tracer.modules.append(path)

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if tracer.modules:
                tracer.modules.pop()
            if path in tracer.excused and path not in result.batch_norms and output is not None:
                with tracer.quietly(), _disable_current_modes():
                    moved = moved_by_others(module, tensors_in((args, kwargs))[0], seed)
                result.batch_norms[path] = moved
            if id(module) in watched and torch.is_grad_enabled():  # checkpoints run again later
                with tracer.quietly():
                    given = tensors_in((args, kwargs))
                    call = ModuleCall(
                        path,
                        module,
                        result.first_bit,
                        [tracer.table.read(tensor) for tensor in given],
                        inner=id(module) in owners - sampled,
                        container=id(module) in containers,
                    )
                result.calls.append(call)
                for tensor in tensors_in(output):
                    if tensor.requires_grad:
                        with tracer.quietly():
                            read_gradient(tensor, call.gradients, tracer, result)
                            if call.container:
                                continue
                            result.output_storages[tensor.untyped_storage()._cdata] = path
                            ends = [t for t in (tensor, tensor._base) if t is not None]
                            result.edges += [
                                (torch.autograd.graph.get_gradient_edge(end), module)
                                for end in ends
                                if end.grad_fn is not None
                            ]

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))

    for path, module in model.named_modules():
        watch(path, module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def write_watch(
    tracer: RecordTracer, state: SavedState, result: Isolation
) -> Callable[[Tensor], None]:
    """Saves parameters before they are written, and notes in-place operators on outputs."""

    def watch(tensor: Tensor) -> None:
        state.save_before_write(tensor)
        storage = tensor.untyped_storage()._cdata
        result.writes[storage] += 1
        path = result.output_storages.get(storage)
        if path is not None and tracer.phase == "forward":
            result.in_place.setdefault(path, location())

    return watch


def _owns_trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))
