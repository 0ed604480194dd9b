"""The quick probe: a few plain forward passes, compared row by row.

Other records are exchanged, one record is exchanged, and records are left out; what belongs to the
records that stayed must not move. Random draws are replaced by constants, so that dropout and
stochastic depth raise no alarm. It sees what masks cannot: dependence on the number of records, and
values that left the dispatcher unseen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws, seed_draws
from dpnorm.detection.inputs import Inputs, call, first_records, tensors_in, with_last_repeated
from dpnorm.detection.isolation import RECORDS, Isolation
from dpnorm.detection.movement import movement, rounding
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.swap import Exchange

Run = Callable[[Inputs], tuple[list[Tensor], list[Tensor]]]

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
    model: nn.Module,
    inputs: Inputs,
    batch: int,
    state: SavedState,
    exchange: Exchange,
    traced: Isolation,
) -> Movements:
    """Runs the batch as it is, with all but one and with one record exchanged, and shorter.

    Most of it is saved where the two traced steps and shorter batches, in which record 0 is
    another one, show already that nothing moves.
    """

    def run(given: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        state.restore_buffers()
        seed_draws(exchange.seed)
        with ConstantDraws():
            output = call(model, given)
        buffers = [buffer.detach().clone() for buffer in model.buffers()]
        state.restore_buffers()
        return [tensor.detach() for tensor in tensors_in(output)], buffers

    if _is_still(run, inputs, batch, exchange, traced):
        return Movements(0.0, 0.0, fixed=False)
    base, buffers = run(inputs)
    others, _ = run(exchange.others(inputs, 0))
    exchanged = movement(base, others, 0, batch)
    for record in range(min(batch, SINGLY)) if batch > RECORDS else (0,):
        one, _ = run(exchange.one(inputs, record))
        moving = [movement(base, one, row, batch) for row in range(batch) if row != record]
        exchanged = max([exchanged, *moving])
    counted, shorter_runs = 0.0, 0
    for size in _sizes(batch):
        try:
            other, other_buffers = run(_resized(inputs, size, batch))
        except Exception:  # a batch size that is built in: the caller is told
            continue
        shorter_runs += 1
        rows = range(min(size, batch))
        counted = max(counted, _moved_rows(base, other, rows, batch, size))
        for a, b in zip(buffers, other_buffers, strict=True):
            counted = max(counted, movement([a.reshape(1, -1)], [b.reshape(1, -1)], 0, 1))
    return Movements(exchanged, counted, fixed=not shorter_runs)


def _is_still(run: Run, inputs: Inputs, batch: int, exchange: Exchange, traced: Isolation) -> bool:
    """Whether nothing moves, between the traced steps and in shorter batches."""
    if batch > traced.records or traced.exchanged is None or not traced.plain:
        return False
    if traced.exchanged > rounding(traced.plain):
        return False
    for size in _sizes(batch):
        try:
            output, buffers = run(_resized(exchange.one(inputs, 0), size, batch))
        except Exception:  # the thorough way finds out what it was
            return False
        limit = rounding(output)
        if _moved_rows(traced.plain, output, range(1, min(size, batch)), batch, size) > limit:
            return False
        if any(not torch.equal(a, b) for a, b in zip(traced.written, buffers, strict=True)):
            return False
    return True


def _sizes(batch: int) -> list[int]:
    """The other numbers of records to try: some left out, or one more where there are but two."""
    return sorted({batch - 1, max(2, batch // 2)} - {batch, 1}) or [3]


def _resized(inputs: Inputs, size: int, batch: int) -> Inputs:
    return first_records(inputs, size) if size < batch else with_last_repeated(inputs)


def _moved_rows(
    base: list[Tensor], other: list[Tensor], rows: Iterable[int], batch: int, size: int
) -> float:
    """How far rows moved between a batch and one of another size."""
    largest = 0.0
    for a, b in zip(base, other, strict=False):
        if a.dim() and b.dim() and len(a) == batch and len(b) == size:
            common = min(batch, size)
            moved = (movement([a[:common]], [b[:common]], row, common) for row in rows)
            largest = max(largest, *moved, 0.0)
    return largest
