"""Following records through two training steps with masks."""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpnorm.detection.draws import Overwrite, make_constant, seed_draws
from dpnorm.detection.exposed import exposed_uses, has_hooks, is_foreign
from dpnorm.detection.families import uses_batch_statistics
from dpnorm.detection.inputs import Inputs, call, first_records, map_tensors, tensors_in
from dpnorm.detection.isolation import RECORDS, Isolation, OutputMasks, record_bits
from dpnorm.detection.movement import movement
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.swap import Exchange
from dpnorm.detection.watches import gradients_reader, module_hooks, read_gradient, write_watch
from dpnorm.provenance import EscapeWatch, RecordTracer, eager
from dpnorm.provenance.masks import uniform
from dpnorm.provenance.table import is_traceable


def trace_two_steps(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    records: int,
    seed: int,
    state: SavedState,
    exchange: Exchange | None = None,
    overwrite: Overwrite | None = None,
) -> Isolation:
    """Runs two training steps under the tracer; buffers and gradients are the caller's to restore.

    Without a criterion the gradient that reaches row i of an output is any function of record i.

    Args:
        model: in its modes.
        inputs: the first `records` of each tensor are used.
        targets: for the criterion, likewise.
        criterion: judged with the model, or None.
        records: at most 4.
        seed: of everything random.
        state: told which parameters are written.
        exchange: make random draws constant and give the second step these other records beside
            the first one, so that the two steps show as well what masks do not see. Without it
            both steps take the same records and draw at random.
        overwrite: without `exchange`, replaces what is drawn.
    """
    tracer = RecordTracer()
    result = Isolation(records, tracer.trace, [], [], {}, backward=False)
    tracer.on_write = write_watch(tracer, state, result)
    tracer.on_draw = overwrite if exchange is None else make_constant
    tracer.excused = {p for p, m in model.named_modules() if uses_batch_statistics(m)}
    inputs = first_records(inputs, records)
    steps = (inputs, inputs if exchange is None else exchange.others(inputs, 0))
    outputs: list[list[Tensor]] = []
    drawn = False
    with ExitStack() as stack:
        stack.enter_context(_cheap_collection())
        stack.enter_context(eager())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(module_hooks(model, tracer, result, seed))
        for batch, given in enumerate(steps):
            seed_draws(seed)
            before = random.getstate(), str(np.random.get_state())
            tracer.phase = "forward"
            result.first_bit = RECORDS * batch
            outputs.append(_one_step(model, given, targets, criterion, tracer, result))
            drawn |= before != (random.getstate(), str(np.random.get_state()))
            if not batch:
                result.written = [buffer.detach().clone() for buffer in model.buffers()]
        result.coins = tracer.coins or drawn
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            found = tracer.bits_of(tensor)
            if found:
                result.state[name] = found
        for parameter in model.parameters():
            parameter.grad = None
        own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
        result.plain = outputs[0]
        if exchange is not None:
            result.exchanged = movement(outputs[0], outputs[1], 0, records)
        gc.collect()
        for key, found in tracer.table.alive().items():
            if key not in own:
                result.kept |= found
    return result


@contextmanager
def _cheap_collection() -> Iterator[None]:
    """Inside, garbage is looked for only among the objects that were made inside."""
    if gc.get_freeze_count():  # somebody else has frozen what there is
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _one_step(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    tracer: RecordTracer,
    result: Isolation,
) -> list[Tensor]:
    """One forward pass, the loss, and the backward pass as far as it can matter.

    Gradients of parameters mix records by nature and are not computed, and the second batch goes
    back no further than the outputs: torch's own backward operators keep nothing between steps,
    and what they compute decides nothing. Where the backward pass runs code of the user's (a custom
    autograd function or a hook), it is run whole, both times, with its numbers.

    Returns:
        Copies of the output tensors.
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
    copies = [tensor.detach().clone() for tensor in tensors if is_traceable(tensor)]
    result.silent |= not tensors
    masks = OutputMasks(first, [tracer.table.read(tensor) for tensor in tensors])
    result.outputs.append(masks)
    live = [t for t in tensors if t.requires_grad]
    if not live:
        return copies
    result.backward = True
    result.foreign_backward |= tracer.hooked or _runs_foreign_code(model, live)
    for parameter in model.parameters():
        parameter.grad = None
    for tensor in live:
        read_gradient(tensor, masks.gradients, tracer, result)
    ends = [torch.autograd.graph.get_gradient_edge(tensor) for tensor in live]
    if not first:
        ends += [edge for edge, _ in result.edges]
    if result.foreign_backward:
        hooked = tracer.hooked or has_hooks(model)
        for name, node in exposed_uses(model, live, result.edges, hooked=hooked):
            node.register_prehook(gradients_reader(name, tracer, result))
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
            own = tracer.hooked or _runs_foreign_code(model, roots)
            with nullcontext() if own else tracer.without_numbers():
                torch.autograd.grad(
                    roots,
                    ends,
                    [s.to(r) for s, r in zip(seeds, roots, strict=True)],
                    allow_unused=True,
                )
    return copies


def _runs_foreign_code(model: nn.Module, outputs: list[Tensor]) -> bool:
    """Whether a backward pass meets a custom autograd function or a hook of the user's."""
    if has_hooks(model):
        return True
    waiting = [tensor.grad_fn for tensor in outputs]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if is_foreign(node):
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
