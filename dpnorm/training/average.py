"""The exponential moving average of a model's parameters and statistics."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """A moving average of all that a model has in floating point.

    The decay of step t is at most (1 + t) / (10 + t), so that the first steps are soon forgotten.
    It is post-processing of what the steps release.

    Args:
        model: that is trained.
        decay: above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in self._current().items()}

    def _current(self) -> dict[str, Tensor]:
        state = self._model.state_dict(keep_vars=True)
        return {name: v for name, v in state.items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the model after step 0, 1, ..."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._current().items():
            self.values[name].lerp_(value, 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Goes on from the `values` of another time."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model is the average inside, and what it was after."""
        before = {name: value.detach().clone() for name, value in self._current().items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(before)

    def apply(self) -> None:
        """Makes the model the average."""
        self._put(self.values)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._current().items():
            value.copy_(values[name])
