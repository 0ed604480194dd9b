"""The count probe: does what a record contributes depend on how many records there are?

The first records are run with the last of them and without. Random draws are replaced by constants,
so that dropout and stochastic depth raise no alarm.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.inputs import Inputs, call, map_tensors, tensors_in
from dpnorm.detection.isolation import RECORDS
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.swap import movement


def count_movement(
    model: nn.Module,
    inputs: Inputs,
    batch: int,
    state: SavedState,
    seed: int,
) -> float:
    """The largest change of a record's output when the last of the records is left out.

    At most four records are run; of two records, a copy of the second is added instead. 0 when
    the model does not run on another number of records: then its batch size is fixed.
    """

    def run(given: Inputs) -> list[Tensor]:
        state.restore_buffers()
        torch.manual_seed(seed)
        with ConstantDraws():
            output = call(model, given)
        state.restore_buffers()
        return [tensor.detach() for tensor in tensors_in(output)]

    longer = _one_more(inputs) if batch < 3 else _first(inputs, min(batch, RECORDS))
    size = 2 if batch < 3 else min(batch, RECORDS) - 1
    base = run(longer)
    try:
        shorter = run(_first(inputs, size))
    except Exception:
        return 0.0
    return max(
        (
            movement([a[:size]], [b], row, size)
            for a, b in zip(base, shorter, strict=False)
            if a.dim() and b.dim() and len(a) == size + 1 and len(b) == size
            for row in range(size)
        ),
        default=0.0,
    )


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
