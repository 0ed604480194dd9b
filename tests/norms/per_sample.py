"""Per-sample gradients, one record at a time, to hold against what Opacus's hooks give."""

import torch
from opacus import GradSampleModule
from torch import Tensor, nn


def one_by_one(layer: nn.Module, x: Tensor, out_grad: Tensor) -> dict[str, Tensor]:
    rows = []
    for i in range(len(x)):
        layer.zero_grad()
        layer(x[i : i + 1]).backward(out_grad[i : i + 1])
        rows.append({n: p.grad.clone() for n, p in layer.named_parameters() if p.requires_grad})
    layer.zero_grad()
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def with_opacus(
    layer: nn.Module, x: Tensor, out_grad: Tensor, *, force_functorch: bool = False
) -> dict[str, Tensor]:
    wrapped = GradSampleModule(layer, loss_reduction="sum", force_functorch=force_functorch)
    wrapped(x.clone().requires_grad_()).backward(out_grad)
    found = {n: p.grad_sample for n, p in layer.named_parameters() if p.requires_grad}
    wrapped.to_standard_module()
    return found
