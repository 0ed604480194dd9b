"""Leaving records out of a batch, one by one, and splitting the change of its gradient sum."""

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.leakage.row_gradients import (
    Loss,
    random_states,
    require_finite,
    row_gradients,
    training_mode,
)


def leave_one_out(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, records: list[int], clip: float | None
) -> tuple[list[list[float]], list[list[float]]]:
    """The norms of own, spill-over, total and the largest neighbour's move, for each record.

    Args:
        model: comes back as it was.
        x: (B, ...).
        y: (B, ...).
        loss: of the batch.
        records: the rows to leave out.
        clip: the clipping norm, or None.

    Returns:
        Of the gradients as they are, and of the clipped ones (none without `clip`).

    Raises:
        InputError: the model draws at random, or what `row_gradients` refuses.
    """
    plain: list[list[float]] = []
    clipped: list[list[float]] = []
    with training_mode(model, dropout=False) as state:
        before = random_states(model)
        whole = row_gradients(model, x, y, loss, state, verify=True)
        if any(not torch.equal(a, b) for a, b in zip(before, random_states(model), strict=True)):
            raise InputError(
                "the model draws at random in training mode, so that leaving a record out would "
                "change the draws of the others: call model.train(), then .eval() on the modules "
                "that draw"
            )
        require_finite(whole.norm(dim=1))
        for record in records:
            others = torch.arange(len(x)) != record
            left = row_gradients(
                model, x[others.to(x.device)], y[others.to(y.device)], loss, state, verify=False
            )
            mask = others.to(whole.device)
            plain.append(_split(whole[record], whole[mask], left))
            if clip is not None:
                short = [_clipped(rows, clip) for rows in (whole, left)]
                clipped.append(_split(short[0][record], short[0][mask], short[1]))
    return plain, clipped


def _split(own: Tensor, others: Tensor, left: Tensor) -> list[float]:
    moves = others - left
    spill = moves.sum(0)
    parts = (own.norm(), spill.norm(), (own + spill).norm(), moves.norm(dim=1).max())
    return [float(part) for part in parts]


def _clipped(rows: Tensor, clip: float) -> Tensor:
    norms = rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return rows * (clip / norms).clamp(max=1.0)
