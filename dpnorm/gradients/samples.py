"""One gradient a record for every parameter, from captured activations and output gradients."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpnorm.errors import InputError
from dpnorm.gradients.capture import Capture, captured


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
        InputError: a module's rows are not the records, so that there is no such gradient.
    """
    scale = records if loss_reduction == "mean" else 1
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad(), captured(modules) as calls:
        loss = loss_of(run())
        torch.autograd.grad(loss, parameters, allow_unused=True)
    found: dict[nn.Parameter, Tensor] = {}
    for call in calls:
        if call.gradient is None:
            continue
        if len(call.gradient) != records:
            raise InputError(
                f"{call.path or 'the model'} has {len(call.gradient)} rows for {records} records: "
                "its rows are not the records (DPN503)"
            )
        for parameter, gradient in _sampled(call, call.gradient * scale).items():
            if parameter.requires_grad:
                before = found.get(parameter)
                found[parameter] = gradient if before is None else before + gradient
    return found


def _sampled(call: Capture, backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    module = call.module
    if isinstance(module, _BatchNorm):
        return _batch_norm_rows(module, call.activations[0], backprops)
    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(module))
    if sampler is not None:
        return sampler(module, call.activations, backprops)
    prepare_layer(module, batch_first=True)
    try:
        return ft_compute_per_sample_gradient(module, call.activations, backprops)
    finally:
        del module.ft_compute_sample_grad


def _batch_norm_rows(
    module: _BatchNorm, x: Tensor, backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Each row's part of a BatchNorm's gradient: sums of g * x_hat and of g, (N, C) each."""
    batch = module.training or module.running_mean is None
    normalized = F.batch_norm(
        x,
        None if batch else module.running_mean,
        None if batch else module.running_var,
        training=batch,
        eps=module.eps,
    )
    gradients = {}
    if module.weight is not None:
        gradients[module.weight] = torch.einsum("nc...,nc...->nc", normalized, backprops)
    if module.bias is not None:
        gradients[module.bias] = torch.einsum("nc...->nc", backprops)
    return gradients
