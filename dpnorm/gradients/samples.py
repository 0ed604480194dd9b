"""One gradient a record for every parameter of a module, from what a hook has captured."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpnorm.gradients.functional import functional_gradients
from dpnorm.gradients.rows import Rows

Sampler = Callable[[Any, list[Tensor], Tensor], dict[nn.Parameter, Tensor]]

# Opacus's samplers of these sum over every dimension between the first and the features
_ANY_DIMENSIONS = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)


def record_gradients(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradient: Tensor,
    records: int,
    rows: Rows,
    *,
    functional: bool = False,
    output: int = 0,
    buffers: Mapping[str, Tensor] | None = None,
    reset: Callable[[], None] = lambda: None,
) -> dict[nn.Parameter, Tensor]:
    """Each record's gradient of the module's trainable parameters: (records, *shape) tensors.

    By Opacus's sampler of the module's class where there is one; rows of a record are put together.
    A BatchNorm has no such gradient where it uses its batch; its row's part of the batch gradient
    is given.

    Args:
        module: that ran.
        args: its arguments, as they were then.
        kwargs: its keyword arguments.
        gradient: (rows, ...), of the loss with respect to its output.
        records: how many.
        rows: which row belongs to which record.
        functional: run the module again record by record, whatever its class.
        output: which of the module's output tensors the gradient belongs to.
        buffers: of the module before it ran, for running it again; default as they are.
        reset: called before the module runs again.
    """
    if not records:
        return {p: p.new_zeros((0, *p.shape)) for p in module.parameters() if p.requires_grad}
    if isinstance(module, _BatchNorm):
        found = _batch_norm_rows(module, args[0], gradient)
        return {p: rows.grouped(g, records).sum(1) for p, g in found.items() if p.requires_grad}
    sampler = None if functional else sampler_of(module)
    if sampler is None or kwargs or not all(isinstance(a, Tensor) for a in args):
        return functional_gradients(
            module, args, kwargs, gradient, records, rows, output, buffers=buffers, reset=reset
        )
    # Opacus's convolutions unfold by strides and are wrong on a permuted tensor
    given, gradient = [tensor.detach().contiguous() for tensor in args], gradient.contiguous()
    if not rows.folded and len(gradient) == records:
        found = sampler(module, given, gradient)
    elif type(module) in _ANY_DIMENSIONS:
        given = [rows.grouped(tensor, records) for tensor in given]
        found = sampler(module, given, rows.grouped(gradient, records))
    else:
        found = sampler(module, given, gradient)
        found = {p: rows.grouped(g, records).sum(1) for p, g in found.items()}
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        found[cast(nn.Parameter, module.weight)][:, module.padding_idx] = (
            0  # a constant, which Opacus's sampler moves
        )
    return {p: g for p, g in found.items() if p.requires_grad}


def sampler_of(module: nn.Module) -> Sampler | None:
    """Opacus's sampler of the module's class, but where it would be wrong or fail."""
    if isinstance(module, nn.LayerNorm) and module.bias is None:
        return None
    if isinstance(module, nn.EmbeddingBag):
        return None  # its sampler wants offsets
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return None
    return GradSampleModule.GRAD_SAMPLERS.get(type(module))


def _batch_norm_rows(
    module: _BatchNorm, x: Tensor, backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Each row's part of a BatchNorm's gradient: sums of g * x_hat and of g, (N, C) each."""
    batch = module.training or module.running_mean is None
    normalized = F.batch_norm(
        x.detach(),
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
