"""What each row of a batch adds to its gradient, on a model that is left as it was."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dpnorm.detection import sampled_modules
from dpnorm.detection.preserve import SavedState, preserved
from dpnorm.errors import InputError, unknown_name
from dpnorm.gradients import per_record_gradients

Criterion = Callable[[Any, Tensor], Tensor]
Reduction = Literal["mean", "sum"]

_ROUNDING = 1e-3  # of the sum of the rows' norms: rows that are wrong miss by far more


@dataclass(frozen=True)
class Loss:
    """A loss of a batch, and what it does over the records: "mean" or "sum"."""

    criterion: Criterion
    reduction: Reduction

    @classmethod
    def of(cls, criterion: Criterion | None, reduction: Reduction) -> "Loss":
        """The criterion, or the cross entropy where there is none.

        Raises:
            InputError: an unknown reduction, or a criterion that says it has another one.
        """
        if reduction not in ("mean", "sum"):
            raise unknown_name("loss_reduction", reduction, ("mean", "sum"))
        if criterion is None:
            return cls(lambda output, y: F.cross_entropy(output, y, reduction="sum"), "sum")
        said = getattr(criterion, "reduction", reduction)
        if said != reduction:
            raise InputError(
                f"the criterion has reduction {said!r}, but loss_reduction is {reduction!r}: they "
                'must agree, and be "mean" or "sum"'
            )
        return cls(criterion, reduction)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the gradients are of.

    Raises:
        InputError: there is none.
    """
    found = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise InputError(
            "the model has no trainable parameter, so that records have no gradients: set "
            "requires_grad of those that are trained"
        )
    return found


def check_records(
    model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion | None, loss: Loss, *, least: int
) -> None:
    """Refuses records that the model or the loss cannot take, by running on the first one.

    The model is in evaluation mode for it, and comes back as it was.

    Args:
        model: any.
        x: (N, ...).
        y: (N, ...).
        criterion: as the caller was given it.
        loss: what `Loss.of` made of it.
        least: how many records are needed.

    Raises:
        InputError: too few records, x and y that differ in length, a number that is not finite, a
            label out of range, records of a shape or dtype that the model cannot take, a loss that
            is no scalar with a gradient, or a model without trainable parameters.
    """
    trainable(model)
    _check_tensors(x, y, least)
    with preserved(model), torch.enable_grad():
        model.eval()
        first, label = to_device(model, x[:1], y[:1])
        try:
            output = model(first)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"the model cannot run on records of shape {tuple(x.shape[1:])} and dtype "
                f"{x.dtype}: {_first_line(error)}"
            ) from error
        if criterion is None:
            _check_labels(output, y)
        try:
            value = loss.criterion(output, label)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"the criterion cannot take the model's output with targets of shape "
                f"{tuple(y.shape)} and dtype {y.dtype}: {_first_line(error)}"
            ) from error
        if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"the criterion gives {came}; a scalar with a gradient is needed, the "
                f"{loss.reduction} over the records"
            )


def to_device(model: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the model's device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(tensor.to(device) for tensor in tensors)


@contextlib.contextmanager
def training_mode(model: nn.Module, *, dropout: bool) -> Iterator[SavedState]:
    """The model as its training step runs it; all of it comes back after.

    A model that stands in training mode is taken as it is, module by module, so that a layer that
    is kept in evaluation mode stays there; one in evaluation mode is switched as a whole.

    Args:
        model: any.
        dropout: whether dropout layers draw; otherwise they are in evaluation mode.

    Yields:
        The state to go back to between two passes.
    """
    with preserved(model):
        if not model.training:
            model.train()
        for module in model.modules():
            if not dropout and isinstance(module, _DropoutNd):
                module.eval()
        with preserved(model) as state:
            yield state


def row_gradients(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, state: SavedState, *, verify: bool
) -> Tensor:
    """Each row's part of the gradient of the sum of the records' losses: (B, parameters).

    Where rows are independent that is the record's own gradient. Where a BatchNorm uses its batch,
    it is what `dpnorm.gradients.per_record_gradients` takes for it, and DP-SGD would clip: the
    backpropagated signal goes through the batch statistics, and the rows add up to the gradient.

    Args:
        model: in the modes of the step.
        x: (B, ...).
        y: (B, ...).
        loss: of the batch.
        state: that the model has before each pass, and after.
        verify: whether to compare the sum of the rows with the gradient of the batch.

    Raises:
        InputError: one record where BatchNorm needs two, rows that are not the records, rows that
            do not add up to the gradient, or a gradient that is not finite.
    """
    x, y = to_device(model, x, y)
    parameters = trainable(model)
    scale = len(x) if loss.reduction == "mean" else 1
    draws = random_states(model)
    state.restore_buffers()
    try:
        found = per_record_gradients(
            model,
            lambda: model(x),
            lambda output: loss.criterion(output, y),
            list(sampled_modules(model)),
            records=len(x),
            loss_reduction=loss.reduction,
        )
        state.restore_buffers()
        rows = torch.cat(
            [
                found[p].reshape(len(x), -1) if p in found else p.new_zeros(len(x), p.numel())
                for p in parameters
            ],
            dim=1,
        )
        if verify:
            _set_random_states(model, draws)
            with torch.enable_grad():
                value = loss.criterion(model(x), y) * scale
                parts = torch.autograd.grad(value, parameters, allow_unused=True)
            state.restore_buffers()
            _check_sum(rows, [_dense(g, p) for g, p in zip(parts, parameters, strict=True)])
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"a batch of {len(x)} record leaves BatchNorm nothing to normalize by: give more "
            "records, or a larger batch_size"
        ) from error
    return rows


def random_states(model: nn.Module) -> list[Tensor]:
    """The states of the random generators that the model's devices draw from."""
    states = [torch.cuda.get_rng_state(device) for device in _cuda_devices(model)]
    return [torch.get_rng_state(), *states]


def require_finite(norms: Tensor) -> None:
    """Raises an InputError where a record's gradient is NaN or infinite."""
    broken = (~torch.isfinite(norms)).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"the gradient of record {broken[0]} ({len(broken)} of {len(norms)} records) is not "
            "finite: the model's parameters or its loss have overflowed, train it again"
        )


def _set_random_states(model: nn.Module, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in zip(_cuda_devices(model), states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})


def _check_tensors(x: Tensor, y: Tensor, least: int) -> None:
    for name, tensor in (("x", x), ("y", y)):
        if not isinstance(tensor, Tensor) or tensor.dim() == 0:
            came = f"a {type(tensor).__name__}" if not isinstance(tensor, Tensor) else "a number"
            raise InputError(f"{name} is {came}; a tensor with one row a record is needed")
        if tensor.is_floating_point():
            finite = torch.isfinite(tensor).flatten(1) if tensor.dim() > 1 else tensor.isfinite()
            broken = ~(finite.all(1) if tensor.dim() > 1 else finite)
            if broken.any():
                raise InputError(
                    f"{name} is NaN or infinite in {int(broken.sum())} of {len(tensor)} records, "
                    f"first in record {int(broken.nonzero()[0])}; finite numbers are needed"
                )
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} records, y has {len(y)}; one target a record is needed")
    if len(x) < least:
        raise InputError(f"there are {len(x)} records; at least {least} are needed")


def _check_labels(output: Any, y: Tensor) -> None:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != 1:
        raise InputError(
            f"the model gives {shape} for one record; the cross entropy needs (1, classes): give "
            "a criterion of your own"
        )
    if y.dtype != torch.int64 or y.dim() != 1:
        raise InputError(
            f"y is {y.dtype} of shape {tuple(y.shape)}; the cross entropy needs int64 labels (N,)"
        )
    classes = output.shape[1]
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise InputError(
            f"the labels run from {int(y.min())} to {int(y.max())}; the model has {classes} "
            f"outputs, so 0 to {classes - 1} is needed"
        )


def _check_sum(rows: Tensor, parts: list[Tensor]) -> None:
    missing = float((rows.sum(0) - torch.cat([part.flatten() for part in parts])).norm())
    if missing > _ROUNDING * float(rows.norm(dim=1).sum()):
        raise InputError(
            "the rows of the batch do not add up to its gradient: a parameter is used outside of "
            "the module that owns it, or such a module draws at random (dpnorm.check names the "
            "modules); take mode='eval', which needs no rows"
        )


def _dense(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient.to_dense()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
