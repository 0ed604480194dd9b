"""Per-record gradient norms: rows of a batch in training, single records in evaluation."""

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dpnorm.detection.preserve import preserved
from dpnorm.leakage.row_gradients import (
    Loss,
    row_gradients,
    to_device,
    trainable,
    training_mode,
)


def in_batches(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, batch_size: int, seed: int
) -> Tensor:
    """The norms (N,) of the records' rows in batches of at most `batch_size`, in float64."""
    batches = -(-len(x) // batch_size)
    if batch_size > 1:  # no batch of one record, which BatchNorm cannot take
        batches = min(batches, max(1, len(x) // 2))
    parts = zip(x.tensor_split(batches), y.tensor_split(batches), strict=True)
    norms = []
    with training_mode(model, dropout=True) as state:
        torch.manual_seed(seed)
        for number, (records, targets) in enumerate(parts):
            rows = row_gradients(model, records, targets, loss, state, verify=number == 0)
            norms.append(rows.double().norm(dim=1).cpu())
    return torch.cat(norms)


def alone(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, batch_size: int, seed: int) -> Tensor:
    """The norms (N,) of single records in evaluation mode, `batch_size` at a time, in float64."""
    norms = []
    with preserved(model):
        model.eval()
        with preserved(model) as state:
            torch.manual_seed(seed)
            for records, targets in zip(x.split(batch_size), y.split(batch_size), strict=True):
                records, targets = to_device(model, records, targets)
                try:
                    squares = _batched(model, records, targets, loss)
                except (RuntimeError, NotImplementedError):
                    # what vmap cannot batch; an error of the model itself is raised again here
                    squares = _one_by_one(model, records, targets, loss)
                state.restore_buffers()
                norms.append(squares.sqrt().cpu())
    return torch.cat(norms)


def _batched(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The squared norms (N,), by vmap over the records."""
    values = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    constant = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    constant |= {name: buffer.detach() for name, buffer in model.named_buffers()}

    def objective(parameters: dict[str, Tensor], record: Tensor, target: Tensor) -> Tensor:
        output = functional_call(model, (parameters, constant), (record[None],))
        return loss.criterion(output, target[None])

    def squared_norm(record: Tensor, target: Tensor) -> Tensor:
        found = grad(objective)(values, record, target)
        return torch.stack([g.double().square().sum() for g in found.values()]).sum()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        return vmap(squared_norm)(x, y)


def _one_by_one(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The squared norms (N,), by a backward pass a record."""
    parameters = trainable(model)
    squares = []
    for record, target in zip(x.split(1), y.split(1), strict=True):
        with torch.enable_grad():
            value = loss.criterion(model(record), target)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        own = [g.double().square().sum() for g in found if g is not None]
        squares.append(torch.stack(own).sum() if own else value.new_zeros((), dtype=torch.double))
    return torch.stack(squares)
