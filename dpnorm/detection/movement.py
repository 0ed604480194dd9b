"""How far a record moved between two runs, and what may be rounding."""

import torch
from torch import Tensor

# Below this a row's movement may be rounding: exchanging the other records can change the order
# of a sum. Coupling found by exchanging them for records ten times as large shows far more.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE_ROUNDING = 5e-2  # bfloat16 and half
COUNT_ROUNDING = 10  # a batch of another length takes other kernels: rounding may be larger


def movement(before: list[Tensor], after: list[Tensor], row: int, batch: int) -> float:
    """The largest change of one record's rows, relative to the largest entry of those rows.

    Tensors whose dimension 0 is not the batch are passed over.
    """
    largest = 0.0
    for a, b in zip(before, after, strict=False):
        if a.dim() == 0 or b.dim() == 0 or len(a) != batch or len(b) != batch:
            continue
        x, y = a[row].double(), b[row].double()
        if x.shape != y.shape:
            return float("inf")
        scale = max(x.abs().max().item(), y.abs().max().item()) if x.numel() else 0.0
        if scale > 0:
            largest = max(largest, ((x - y).abs().max() / scale).item())
    return largest


def rounding(tensors: list[Tensor]) -> float:
    """The movement below which a difference may be rounding, by the coarsest dtype."""
    kinds = [ROUNDING.get(t.dtype, COARSE_ROUNDING) for t in tensors if t.is_floating_point()]
    return max(kinds, default=0.0)
