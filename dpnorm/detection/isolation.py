"""Following records through two training steps with masks, and collecting what must be isolated."""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from dpnorm.detection.families import uses_batch_statistics
from dpnorm.detection.inputs import Inputs, call, map_tensors, tensors_in
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.sampled import sampled_modules
from dpnorm.detection.swap import moved_by_others
from dpnorm.provenance import EscapeWatch, Mask, RecordTracer, Trace, eager
from dpnorm.provenance.masks import bits, reduce_or, uniform
from dpnorm.provenance.tracer import location

RECORDS = 4  # bits for one batch; two batches in a row have fresh ones


@dataclass
class ModuleCall:
    """What one call of a module took and what gradients came back, as masks.

    `inner` modules own parameters but stand below one that Opacus differentiates whole.
    """

    path: str
    module: nn.Module
    first_bit: int
    activations: list[Mask]
    inner: bool = False
    gradients: list[Mask] = field(default_factory=list)


@dataclass
class OutputMasks:
    """The masks of the model's outputs in one batch, and of the gradients that reached them."""

    first_bit: int
    outputs: list[Mask]
    gradients: list[Mask] = field(default_factory=list)


@dataclass
class Isolation:
    """Everything that the verdict is read from.

    Attributes:
        records: in each of the two batches.
        trace: operators without a rule, escapes, and where elements were mixed.
        calls: the calls of the modules that Opacus samples.
        outputs: of the model, for each batch.
        state: parameters and buffers that carry bits afterwards, by name.
        backward: whether a backward pass was run.
        in_place: where outputs of sampled modules are modified in place, by path.
        output_storages: of sampled modules, to know them when they are written.
        batch_norms: how far a record's output moved when the others were exchanged in the input
            of each BatchNorm-family layer that uses its batch. Their coupling is measured here, and
            the masks go on as if they were frozen, so that what else couples records shows.
        first_bit: of the batch that is running.
        foreign_backward: whether the backward pass runs code that is not torch's.
        coins: whether a random draw decided what Python did, so that another seed may take another
            path.
        kept: bits of tensors that are still alive after both steps, outside of the model's
            parameters and buffers.
        silent: whether the model gave no tensor that could be judged.
        edges: of the graph, at the outputs of the sampled modules' calls.
    """

    records: int
    trace: Trace
    calls: list[ModuleCall]
    outputs: list[OutputMasks]
    state: dict[str, int]
    backward: bool
    first_bit: int = 0
    foreign_backward: bool = False
    coins: bool = False
    kept: int = 0
    silent: bool = False
    edges: list[Any] = field(default_factory=list)
    in_place: dict[str, str] = field(default_factory=dict)
    output_storages: dict[int, str] = field(default_factory=dict)
    batch_norms: dict[str, float] = field(default_factory=dict)


def record_bits(first: int, records: int) -> np.ndarray:
    """The bits of records 0, 1, ... of a batch: uint8[records]."""
    return np.array([1 << (first + i) for i in range(records)], np.uint8)


def trace_two_steps(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    records: int,
    seed: int,
    state: SavedState,
) -> Isolation:
    """Runs two training steps under the tracer; buffers and gradients are the caller's to restore.

    Without a criterion the gradient that reaches row i of an output is any function of record i.
    """
    tracer = RecordTracer()
    result = Isolation(records, tracer.trace, [], [], {}, backward=False)
    tracer.on_write = _write_watch(tracer, state, result)
    tracer.excused = {p for p, m in model.named_modules() if uses_batch_statistics(m)}
    random.seed(seed)
    np.random.seed(seed)
    before = random.getstate(), str(np.random.get_state())
    with ExitStack() as stack:
        stack.enter_context(eager())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_module_hooks(model, tracer, result, seed))
        for batch in range(2):
            torch.manual_seed(seed)
            tracer.phase = "forward"
            result.first_bit = RECORDS * batch
            _one_step(model, inputs, targets, criterion, tracer, result)
    drawn = before != (random.getstate(), str(np.random.get_state()))
    result.coins = tracer.coins or drawn
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found = tracer.bits_of(tensor)
        if found:
            result.state[name] = found
    for parameter in model.parameters():
        parameter.grad = None
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    gc.collect()
    for key, found in tracer.table.alive().items():
        if key not in own:
            result.kept |= found
    return result


def _one_step(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    tracer: RecordTracer,
    result: Isolation,
) -> None:
    """One forward pass, the loss, and the backward pass as far as it can matter.

    Gradients of parameters mix records by nature and are not computed, and the second batch goes
    back no further than the outputs: torch's own backward operators keep nothing between steps.
    Where the backward pass runs code of the user's (a custom autograd function or a hook), it is
    run whole, both times.
    """
    first = result.first_bit
    lines = record_bits(first, result.records)

    def marked(tensor: Tensor) -> Tensor:
        if not tensor.dim():
            return tensor.detach().clone()
        copy = tensor[: result.records].detach().clone()
        shape = (result.records,) + (1,) * (copy.dim() - 1)
        tracer.table.write(copy, np.broadcast_to(lines.reshape(shape), tuple(copy.shape)))
        return copy

    given = map_tensors(marked, inputs)
    wanted = map_tensors(marked, targets)
    with EscapeWatch(tracer), tracer:
        output = call(model, given)
    tensors = tensors_in(output)
    result.silent |= not tensors
    masks = OutputMasks(first, [tracer.table.read(tensor) for tensor in tensors])
    result.outputs.append(masks)
    live = [t for t in tensors if t.requires_grad]
    if not live:
        return
    result.backward = True
    result.foreign_backward |= tracer.hooked or _runs_foreign_code(model, live)
    for parameter in model.parameters():
        parameter.grad = None
    for tensor in live:
        tensor.register_hook(_gradient_reader(tracer, masks.gradients))
    ends = [torch.autograd.graph.get_gradient_edge(tensor) for tensor in live]
    if not first:
        ends += result.edges
    result.edges = []
    roots, seeds = live, [_seed_gradient(tensor, lines, tracer) for tensor in live]
    with EscapeWatch(tracer), tracer:
        if criterion is not None:
            tracer.phase = "loss"
            roots, seeds = [criterion(output, wanted)], [torch.ones(())]
        tracer.phase = "backward"
        if result.foreign_backward:
            torch.autograd.backward(
                roots, [s.to(r) for s, r in zip(seeds, roots, strict=True)], retain_graph=not first
            )
        elif criterion is not None or not first:
            torch.autograd.grad(
                roots,
                ends,
                [s.to(r) for s, r in zip(seeds, roots, strict=True)],
                allow_unused=True,
            )


def _runs_foreign_code(model: nn.Module, outputs: list[Tensor]) -> bool:
    """Whether a backward pass meets a custom autograd function or a hook of the user's."""
    if any(module._backward_hooks or module._backward_pre_hooks for module in model.modules()):
        return True
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters()):
        return True
    waiting = [tensor.grad_fn for tensor in outputs]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def _seed_gradient(output: Tensor, lines: np.ndarray, tracer: RecordTracer) -> Tensor:
    """A gradient for an output that depends, row by row, on the record of the row.

    A scalar output is a loss and gets a constant. An output whose dimension 0 is not the batch
    gets, element by element, the bits that the element carries.
    """
    seed = torch.ones_like(output)
    if output.dim() == 0:
        mask = uniform((), 0)
    elif len(output) == len(lines):
        mask = lines.reshape((len(lines),) + (1,) * (output.dim() - 1))
    else:
        mask = tracer.table.read(output)
    tracer.table.write(seed, np.broadcast_to(mask, tuple(seed.shape)))
    return seed


def _gradient_reader(tracer: RecordTracer, into: list[Mask]) -> Callable[[Tensor], None]:
    def read(gradient: Tensor) -> None:
        with tracer.quietly():
            into.append(tracer.table.read(gradient))

    return read


@contextmanager
def _module_hooks(
    model: nn.Module, tracer: RecordTracer, result: Isolation, seed: int
) -> Iterator[None]:
    """Tells the tracer which module runs, and reads masks at the sampled ones."""
    sampled = {id(module) for _, module in sampled_modules(model)}
    watched = sampled | {id(m) for m in model.modules() if _owns_trainable(m)}
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
                        inner=id(module) not in sampled,
                    )
                result.calls.append(call)
                for tensor in tensors_in(output):
                    if tensor.requires_grad:
                        with tracer.quietly():
                            result.output_storages[tensor.untyped_storage()._cdata] = path
                            tensor.register_hook(_gradient_reader(tracer, call.gradients))
                            if tensor.grad_fn is not None:
                                edge = torch.autograd.graph.get_gradient_edge(tensor)
                                result.edges.append(edge)

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))

    for path, module in model.named_modules():
        watch(path, module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _write_watch(
    tracer: RecordTracer, state: SavedState, result: Isolation
) -> Callable[[Tensor], None]:
    """Saves parameters before they are written, and notes in-place operators on outputs."""

    def watch(tensor: Tensor) -> None:
        state.save_before_write(tensor)
        path = result.output_storages.get(tensor.untyped_storage()._cdata)
        if path is not None and tracer.phase == "forward":
            result.in_place.setdefault(path, location())

    return watch


def _owns_trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))


def row_bits(mask: Mask) -> np.ndarray:
    """The bits of each row, OR over everything behind dimension 0: uint8[rows]."""
    if mask.ndim == 0:
        return np.array([bits(mask)], np.uint8)
    if mask.ndim == 1:
        return np.asarray(mask)
    return np.asarray(reduce_or(mask, tuple(range(1, mask.ndim)), keepdim=False))
