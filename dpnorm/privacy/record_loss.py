"""The loss of each record, for ghost clipping."""

import copy
from typing import Any, Literal

from torch import Tensor, nn

from dpnorm.errors import InputError


class RecordLoss:
    """A criterion that gives one loss a record where its `reduction` is "none".

    Ghost clipping scales the loss of each record. A criterion that ignores its reduction, or whose
    elements are not the records, would let one record's scale reach the others.

    Args:
        criterion: of torch's kind, with a `reduction` attribute; it is copied.
        loss_reduction: "mean" or "sum": how the elements of a record are put together, and what
            the loss does over records.

    Raises:
        InputError: the criterion has no reduction, or another one.
    """

    def __init__(self, criterion: Any, loss_reduction: Literal["mean", "sum"]) -> None:
        found = getattr(criterion, "reduction", None)
        if not isinstance(criterion, nn.Module) or found != loss_reduction:
            raise InputError(
                "ghost clipping needs the loss of each record: pass a criterion such as "
                f"nn.CrossEntropyLoss(reduction={loss_reduction!r}), whose reduction can be taken "
                f"off (got {type(criterion).__name__} with reduction {found!r}), or take "
                "grad_sample_mode='hooks'"
            )
        self._criterion: Any = copy.deepcopy(criterion)
        self.reduction: str = loss_reduction
        self._loss_reduction = loss_reduction

    def __call__(self, output: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss; with reduction "none" one a record: (B,).

        Raises:
            InputError: the criterion gives no loss for each record.
        """
        self._criterion.reduction = self.reduction
        loss = self._criterion(output, *args, **kwargs)
        if self.reduction != "none":
            return loss
        if not isinstance(loss, Tensor) or not loss.dim() or len(loss) != len(output):
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                f"the criterion gives {shape} for {len(output)} records where it should not reduce "
                "at all: ghost clipping needs one loss a record; take grad_sample_mode='hooks'"
            )
        by_record = loss.flatten(1) if loss.dim() > 1 else loss[:, None]  # of no records, too
        return by_record.mean(1) if self._loss_reduction == "mean" else by_record.sum(1)
