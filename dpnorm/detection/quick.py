"""The quick probe: a few plain forward passes, compared row by row.

Other records are exchanged, one record is exchanged, and records are left out; what belongs to the
records that stayed must not move. Random draws are replaced by constants, so that dropout and
stochastic depth raise no alarm. It sees what masks cannot: dependence on the number of records, and
values that left the dispatcher unseen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.inputs import Inputs, call, map_tensors, tensors_in
from dpnorm.detection.isolation import RECORDS
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.swap import movement, swap_one, swap_others

SINGLY = 16  # of a batch that is too long for masks, so many records are exchanged one by one


@dataclass(frozen=True)
class Movements:
    """How far a record's output moved, relative to its size.

    Attributes:
        exchanged: when other records were exchanged.
        counted: when records were left out, or a buffer moved with their number.
        fixed: whether the model runs on no smaller batch, so that `counted` says nothing.
    """

    exchanged: float
    counted: float
    fixed: bool


def quick_movements(
    model: nn.Module, inputs: Inputs, batch: int, state: SavedState, seed: int
) -> Movements:
    """Runs the batch as it is, with all but one and with one record exchanged, and shorter."""

    def run(given: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        state.restore_buffers()
        torch.manual_seed(seed)
        with ConstantDraws():
            output = call(model, given)
        buffers = [buffer.detach().clone() for buffer in model.buffers()]
        state.restore_buffers()
        return [tensor.detach() for tensor in tensors_in(output)], buffers

    base, buffers = run(inputs)
    others, _ = run(swap_others(inputs, 0, seed))
    exchanged = movement(base, others, 0, batch)
    for record in range(min(batch, SINGLY)) if batch > RECORDS else (0,):
        one, _ = run(swap_one(inputs, record, seed))
        moving = [movement(base, one, row, batch) for row in range(batch) if row != record]
        exchanged = max([exchanged, *moving])
    counted, shorter_runs = 0.0, 0
    sizes = sorted({batch - 1, max(2, batch // 2)} - {batch, 1})
    for size in sizes or [3]:
        given = _first(inputs, size) if size < batch else _one_more(inputs)
        try:
            other, other_buffers = run(given)
        except Exception:  # a batch size that is built in: the caller is told
            continue
        shorter_runs += 1
        rows = min(size, batch)
        for a, b in zip(base, other, strict=False):
            if a.dim() and b.dim() and len(a) == batch and len(b) == size:
                moved = max(movement([a[:rows]], [b[:rows]], row, rows) for row in range(rows))
                counted = max(counted, moved)
        for a, b in zip(buffers, other_buffers, strict=True):
            counted = max(counted, movement([a.reshape(1, -1)], [b.reshape(1, -1)], 0, 1))
    return Movements(exchanged, counted, fixed=not shorter_runs)


def loss_scale(
    criterion: Callable[[Any, Any], Tensor], output: Any, targets: Any, batch: int
) -> list[float]:
    """How each record's output gradient changes when the last record is repeated.

    For every record but the last, the norm of its gradient in the longer batch over its norm in
    the batch: batch / (batch + 1) for a mean over records, 1 for a sum.
    """
    short = _output_gradients(criterion, output, targets)
    long = _output_gradients(criterion, _one_more(output), _one_more(targets))
    ratios = []
    for row in range(batch - 1):
        norm_short = sum(float(g[row].double().square().sum()) for g in short) ** 0.5
        norm_long = sum(float(g[row].double().square().sum()) for g in long) ** 0.5
        if norm_short > 0:
            ratios.append(norm_long / norm_short)
    return ratios


def _output_gradients(
    criterion: Callable[[Any, Any], Tensor], output: Any, targets: Any
) -> list[Tensor]:
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1]

    with torch.enable_grad():
        loss = criterion(map_tensors(leaf, output), targets)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [g for g in found if g is not None and g.dim()]


def _first(value: Any, count: int) -> Any:
    """The first rows of every tensor."""
    return map_tensors(lambda t: t[:count] if t.dim() else t, value)


def _one_more(value: Any) -> Any:
    """Every tensor with its last row repeated."""
    return map_tensors(lambda t: torch.cat([t, t[-1:]]) if t.dim() else t, value)
