"""Probes of the loss: what it gives a record, and by what it divides."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpnorm.detection.inputs import map_tensors, tensors_in, with_last_repeated
from dpnorm.detection.movement import COUNT_ROUNDING, movement, rounding
from dpnorm.detection.report import Finding, finding
from dpnorm.detection.swap import Exchange
from dpnorm.errors import InputError

Criterion = Callable[[Any, Any], Tensor]


def coupled_loss(
    output: Any,
    targets: Any,
    criterion: Criterion | None,
    batch: int,
    keep: int,
    exchange: Exchange,
) -> Iterator[Finding]:
    """Whether a record's output gradient depends on the outputs and targets of the others."""
    outputs = [t for t in tensors_in(output) if t.is_floating_point()]
    if criterion is None or not outputs:
        return

    def gradients(values: list[Tensor], wanted: Any) -> list[Tensor] | None:
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            loss = criterion(_refill(output, leaves), wanted)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise InputError("the criterion must return a scalar loss tensor")
            if not loss.requires_grad:
                return None
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [g for g in found if g is not None]

    def gradients_beside(others: Exchange) -> list[Tensor] | None:
        mixed = others.others((*outputs, targets), keep)
        assert isinstance(mixed, tuple)
        return gradients(list(mixed[:-1]), mixed[-1])

    before = gradients(outputs, targets)
    try:
        after = gradients_beside(exchange)
    except (RuntimeError, ValueError):  # a loss of probabilities takes no large outputs
        after = gradients_beside(replace(exchange, large=False))
    if before is None or after is None:
        return
    moved = movement(before, after, keep, batch)
    if moved <= rounding(outputs):
        return
    code = "DPN302" if _parallel(before, after, keep, batch) else "DPN301"
    message = (
        "exchanging the other records' outputs and targets moves the gradient of a record's "
        f"output by {moved:.3g} of its size"
    )
    yield finding(code, "", criterion, "", message, moved)


def _parallel(before: list[Tensor], after: list[Tensor], row: int, batch: int) -> bool:
    """Whether one record's gradient only changed its length: another divisor, the same loss."""
    a = torch.cat([g[row].flatten().double() for g in before if g.dim() and len(g) == batch])
    b = torch.cat([g[row].flatten().double() for g in after if g.dim() and len(g) == batch])
    size = a.norm() * b.norm()
    return bool(size > 0 and (a @ b) / size > 1 - 1e-6)


def misreduced(
    output: Any, targets: Any, criterion: Criterion, batch: int, loss_reduction: str
) -> Iterator[Finding]:
    """Whether the loss is a mean or a sum over records, as the engine will be told."""
    rows = [t for t in tensors_in(output) if t.is_floating_point() and t.dim()]
    if not rows or any(len(t) != batch for t in rows):
        message = "its reduction could not be judged: the rows of the output are not the records"
        yield finding("DPN902", "", criterion, "", message)
        return
    ratios = _loss_scale(criterion, output, targets, batch)
    expected = batch / (batch + 1) if loss_reduction == "mean" else 1.0
    limit = COUNT_ROUNDING * rounding(rows)
    wrong = [abs(ratio / expected - 1) for ratio in ratios if abs(ratio / expected - 1) > limit]
    if not wrong:
        return
    other = 1.0 if loss_reduction == "mean" else batch / (batch + 1)
    swapped = all(abs(ratio / other - 1) <= limit for ratio in ratios)
    code = "DPN303" if swapped else "DPN302"
    message = (
        f"one record more scales a record's gradient by {ratios[0]:.3g}; a {loss_reduction} over "
        f"records would scale it by {expected:.3g}"
    )
    yield finding(code, "", criterion, "", message, max(wrong))


def _loss_scale(criterion: Criterion, output: Any, targets: Any, batch: int) -> list[float]:
    """How each record's output gradient changes when the last record is repeated.

    For every record but the last, the norm of its gradient in the longer batch over its norm in
    the batch: batch / (batch + 1) for a mean over records, 1 for a sum.
    """
    short = _output_gradients(criterion, output, targets)
    long = _output_gradients(criterion, with_last_repeated(output), with_last_repeated(targets))
    ratios = []
    for row in range(batch - 1):
        norm_short = sum(float(g[row].double().square().sum()) for g in short) ** 0.5
        norm_long = sum(float(g[row].double().square().sum()) for g in long) ** 0.5
        if norm_short > 0:
            ratios.append(norm_long / norm_short)
    return ratios


def _output_gradients(criterion: Criterion, output: Any, targets: Any) -> list[Tensor]:
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


def _refill(output: Any, leaves: list[Tensor]) -> Any:
    """The output's structure with its floating-point tensors replaced in order."""
    rest = iter(leaves)
    return map_tensors(lambda t: next(rest) if t.is_floating_point() else t, output)
