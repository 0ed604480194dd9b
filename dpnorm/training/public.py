"""Public records, whose statistics some layers take anew after each step."""

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.norms import public_statistics, refresh_statistics


class PublicRecords:
    """The public records of a training, where its model has a use for them.

    Args:
        model: that is trained.
        inputs: of public records; None where there are none.

    Raises:
        InputError: the model takes statistics of public records, and there are none.
    """

    def __init__(self, model: nn.Module, inputs: Tensor | None) -> None:
        self._model = model
        self._inputs: Tensor | None = None
        if not public_statistics(model):
            return
        if inputs is None or not len(inputs):
            raise InputError(
                "the model has layers that take statistics of public records, and the data set has "
                "no public part: take another variant, or a data set with one"
            )
        self._inputs = inputs.to(next(model.parameters()).device)

    def refresh(self) -> None:
        """Statistics follow the weights."""
        if self._inputs is not None:
            with torch.no_grad():
                refresh_statistics(self._model, self._inputs)
