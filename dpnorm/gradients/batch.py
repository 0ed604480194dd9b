"""The per-record gradients of one batch, for measurements."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.gradients.capture import captured
from dpnorm.gradients.rows import Rows
from dpnorm.gradients.samples import record_gradients


def per_record_gradients(
    model: nn.Module,
    run: Callable[[], Any],
    loss_of: Callable[[Any], Tensor],
    modules: list[tuple[str, nn.Module]],
    *,
    records: int,
    loss_reduction: Literal["mean", "sum"] = "mean",
) -> dict[nn.Parameter, Tensor]:
    """The gradients that Opacus's samplers compute: (records, *shape) by parameter.

    Where Opacus has no sampler because the layer couples records, as an active BatchNorm does, a
    record's gradient is its row's part of the batch gradient.

    Args:
        model: in the modes in which it is to be differentiated; its `.grad` is not touched.
        run: runs the model and returns its output.
        loss_of: the scalar loss of that output.
        modules: the modules that own the parameters, by path.
        records: rows of the batch.
        loss_reduction: "mean" multiplies the gradients by the number of records, as Opacus does.

    Raises:
        InputError: a module's rows are not the records, so that there is no such gradient; or what
            it gave was written in place, and it is lost.
    """
    scale = records if loss_reduction == "mean" else 1
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad(), captured(modules) as calls:
        loss = loss_of(run())
        torch.autograd.grad(loss, parameters, allow_unused=True)
    found: dict[nn.Parameter, Tensor] = {}
    for call in calls:
        if call.lost is not None and call.lost():
            raise InputError(
                f"what {call.path or 'the model'} gave was written in place afterwards (DPN501), "
                "so that its gradient is lost: replace the in-place operation"
            )
        if call.gradient is None:
            continue
        if len(call.gradient) != records:
            raise InputError(
                f"{call.path or 'the model'} has {len(call.gradient)} rows for {records} records: "
                "its rows are not the records (DPN503)"
            )
        args = tuple(call.activations)
        own = record_gradients(call.module, args, {}, call.gradient * scale, records, Rows())
        for parameter, gradient in own.items():
            before = found.get(parameter)
            found[parameter] = gradient if before is None else before + gradient
    return found
