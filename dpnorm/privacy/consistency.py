"""Whether the gradients of the records add up to the gradient of their batch."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.inputs import Inputs, call, tensors_in
from dpnorm.detection.movement import rounding
from dpnorm.detection.preserve import preserved
from dpnorm.errors import RefusedError
from dpnorm.gradients import Rows
from dpnorm.gradients.factors import dense
from dpnorm.privacy.grad_sample import RecordGradSampleHooks

SLACK = 30  # sums over records and positions run in another order


def require_consistent(
    model: nn.Module,
    rows: Mapping[str, Rows],
    inputs: Inputs,
    *,
    mode: str,
) -> None:
    """Runs a batch forward and backward, and compares.

    They differ where a parameter is used outside of its module, or where a module that is run again
    record by record draws other random numbers. Such gradients would train something else, and
    under ghost clipping, which scales the true gradient by norms of these, the bound would not
    hold.

    Args:
        model: in training mode; it comes back as it was.
        rows: which rows of a module belong to which record.
        inputs: a few records.
        mode: of gradient sampling. Under "ghost" random draws are let be, since norms and gradients
            are of one pass; otherwise they are made constant for the comparison.

    Raises:
        RefusedError: for some parameter they do not add up.
    """
    with preserved(model):
        hooks = RecordGradSampleHooks(
            model,
            rows=rows,
            own=True,
            lean=mode == "lean",
            loss_reduction="sum",
            force_functorch=mode == "functorch",
        )
        try:
            with torch.enable_grad(), nullcontext() if mode == "ghost" else ConstantDraws():
                whole, by_record = _both(model, hooks, inputs)
        finally:
            hooks.cleanup()
    names = {parameter: name for name, parameter in model.named_parameters()}
    scale = max((float(g.norm()) for g in whole.values()), default=0.0)
    for parameter, gradient in whole.items():
        off = float((by_record[parameter] - gradient).norm())
        if off > SLACK * rounding([gradient]) * max(float(gradient.norm()), 1e-3 * scale):
            raise RefusedError(
                f"refused: the gradients of the records do not add up to that of the batch for "
                f"{names[parameter]} (off by {off / max(float(gradient.norm()), 1e-30):.2g} of its "
                "size; DPN502): it is used outside of its module, or its module draws random "
                "numbers anew when it is run record by record; use a parameter where it lives, and "
                "set dropout to 0 in modules that own parameters directly"
            )


def _both(
    model: nn.Module, hooks: Any, inputs: Inputs
) -> tuple[dict[nn.Parameter, Tensor], dict[nn.Parameter, Tensor]]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    outputs = [t for t in tensors_in(call(model, inputs)) if t.requires_grad]
    drawn = np.random.default_rng(0)  # torch's draws may be constant here, and alike for all rows
    weights = [torch.from_numpy(drawn.standard_normal(tuple(t.shape))).to(t) for t in outputs]
    hooks.disable_hooks()
    plain = torch.autograd.grad(outputs, trainable, weights, allow_unused=True, retain_graph=True)
    hooks.enable_hooks()
    torch.autograd.grad(outputs, trainable, weights, allow_unused=True)
    whole = {
        p: torch.zeros_like(p) if g is None else g for p, g in zip(trainable, plain, strict=True)
    }
    return whole, {p: dense(p.grad_sample).sum(0) for p in trainable}  # type: ignore[attr-defined]
