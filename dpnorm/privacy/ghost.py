"""Ghost clipping: a loss whose backward pass gives the sum of the records' clipped gradients.

The first pass through the graph finds each record's norm, the second the sum of what is clipped.
Both begin at the model's outputs, and the second one with the very rows of the first, each scaled
by its record's factor: whatever the loss is made of, nothing but clipped gradients is released.
"""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.gradients.factors import Outer, OuterSum, row_norms


class GhostLoss:
    """The criterion of a training under ghost clipping; what it returns has a `backward()`.

    Args:
        criterion: gives one loss a record, (B,), where its `reduction` is "none".
        clip: from the sum of the losses to the gradients of each parameter, clipped and added up.
        take: called with these.
        loss_reduction: "mean" or "sum".
    """

    def __init__(
        self,
        criterion: Any,
        clip: Callable[[Tensor], dict[nn.Parameter, Tensor]],
        take: Callable[[dict[nn.Parameter, Tensor]], None],
        loss_reduction: str,
    ) -> None:
        self._criterion = criterion
        self._clip, self._take = clip, take
        self._loss_reduction = loss_reduction

    def __call__(self, *args: Any, shape: tuple[int, ...] | None = None, **kwargs: Any) -> Any:
        """The losses of the records, as `criterion` takes outputs and targets.

        Args:
            args: of the criterion.
            shape: of the output before it was flattened, (B, T, ...), where each record has T rows.
            kwargs: of the criterion.
        """
        before, self._criterion.reduction = self._criterion.reduction, "none"
        try:
            losses = self._criterion(*args, **kwargs)
        finally:
            self._criterion.reduction = before
        if shape is not None and len(losses) == shape[0] * shape[1]:
            rows = losses.view(shape[0], shape[1])
            losses = rows.mean(1) if self._loss_reduction == "mean" else rows.sum(1)
        return RecordLosses(losses, self)


class RecordLosses:
    """One loss a record; it can be scaled, added to another one of its kind, and run backward.

    Args:
        losses: (B,).
        of: the criterion that gave them.
    """

    def __init__(self, losses: Tensor, of: GhostLoss) -> None:
        self.losses = losses
        self._of = of

    def backward(self) -> None:
        """Gives the optimizer the sum of the clipped gradients."""
        self._of._take(self._of._clip(self.losses.sum()))

    def detach(self) -> Tensor:
        """The loss of the batch, without its graph."""
        losses = self.losses.detach()
        return losses.mean() if self._of._loss_reduction == "mean" else losses.sum()

    def item(self) -> float:
        """The loss of the batch as a number."""
        return float(self.detach())

    def __mul__(self, factor: Any) -> Self:
        return self._like(self.losses * _number(factor))

    __rmul__ = __mul__

    def __truediv__(self, factor: Any) -> Self:
        return self._like(self.losses / _number(factor))

    def __neg__(self) -> Self:
        return self._like(-self.losses)

    def __add__(self, other: Any) -> Self:
        if isinstance(other, RecordLosses):
            return self._like(self.losses + other.losses)
        return self._like(self.losses + _number(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        return self + (-other if isinstance(other, RecordLosses) else -_number(other))

    def __rsub__(self, other: Any) -> Self:
        return -self + other

    def __repr__(self) -> str:
        return f"RecordLosses({len(self.losses)} records, {self.item():.4f})"

    def _like(self, losses: Tensor) -> Self:
        return type(self)(losses, self._of)


def _number(value: Any) -> Any:
    plain = isinstance(value, (int, float)) or (
        isinstance(value, Tensor) and not value.requires_grad and value.numel() == 1
    )
    if not plain:
        raise InputError(
            "under ghost clipping a loss takes numbers and other losses of the criterion that "
            f"make_private returned, not a {type(value).__name__} with a gradient of its own, "
            "which no record's norm would count: take grad_sample_mode='hooks'"
        )
    return value


def linear_norms(layer: nn.Linear, x: Tensor, gradient: Tensor) -> dict[nn.Parameter, Tensor]:
    """The norm of each record's gradient of a linear layer, without the gradient where that pays.

    What is given is never too small (`dpnorm.gradients.factors`).

    Args:
        layer: that ran once.
        x: (B, T, in) its inputs, T rows of each record.
        gradient: (B, T, out) of the loss with respect to its outputs.

    Returns:
        A (B,) tensor for each trainable parameter.
    """
    norms: dict[Any, Tensor] = {}
    if layer.weight.requires_grad:
        one = x.shape[1] == 1
        factors = Outer(gradient[:, 0], x[:, 0]) if one else OuterSum(gradient, x)
        norms[layer.weight] = row_norms(factors)
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = row_norms(gradient.sum(1))
    return norms
