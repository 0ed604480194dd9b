"""Looking at a member while it is trained."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from dpnorm.data import Records
from dpnorm.leakage.course import MemberCourse
from dpnorm.leakage.gradient_norms import gradient_norms
from dpnorm.training import predict


class Watcher:
    """What `train` calls after each epoch: losses, predictions and gradient norms are taken down.

    Args:
        factory: builds a model like the one that is trained. Gradients are taken of a copy: the
            trained one may have the hooks of a private training.
        records: N, that are looked at.
        keep: bool[N], those that it is trained on; gradient norms are of them alone.
        every: look every so many epochs.
        batch_size: of the batches in which gradient norms are taken, as a layer that couples
            records sees them; None for no gradient norms.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        records: Records,
        keep: NDArray[np.bool_],
        *,
        every: int,
        batch_size: int | None,
    ) -> None:
        self._factory, self._records, self._every = factory, records, every
        self._batch_size = batch_size
        # in an order of its own: outliers stand at the end of a data set, and would share batches
        self._order = np.random.default_rng(0).permutation(np.flatnonzero(keep))
        self._epochs: list[int] = []
        self._correct: list[NDArray[np.bool_]] = []
        self._loss: list[NDArray[np.float32]] = []
        self._norms: list[NDArray[np.float32]] = []

    def __call__(self, model: nn.Module, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        if epoch % self._every == 0:
            self.look(model, epoch)

    def look(self, model: nn.Module, epoch: int) -> None:
        """Takes down how the model stands after this epoch, unless that was done already."""
        if self._epochs and self._epochs[-1] == epoch:
            return
        logits, labels = predict(model, self._records.x), self._records.y
        self._epochs.append(epoch)
        self._correct.append((logits.argmax(1) == labels).numpy())
        self._loss.append(F.cross_entropy(logits, labels, reduction="none").numpy())
        if self._batch_size is not None:
            self._norms.append(self._gradient_norms(model, self._batch_size))

    def course(self) -> MemberCourse:
        """All that was taken down."""
        return MemberCourse(
            epochs=np.array(self._epochs, dtype=np.int64),
            correct=np.stack(self._correct),
            loss=np.stack(self._loss),
            norms=np.stack(self._norms) if self._norms else None,
        )

    def _gradient_norms(self, model: nn.Module, batch_size: int) -> NDArray[np.float32]:
        """float32[N], NaN for records that the model is not trained on."""
        with torch.random.fork_rng():
            copy = self._factory()
        copy.load_state_dict(model.state_dict())
        order = torch.from_numpy(self._order)
        x, y = self._records.x[order], self._records.y[order]
        norms = np.full(len(self._records), np.nan, dtype=np.float32)
        norms[self._order] = gradient_norms(copy, x, y, mode="train", batch_size=batch_size).numpy()
        return norms
