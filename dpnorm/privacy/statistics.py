"""What the records of a batch say of the statistics of all layers: clipped, summed, released."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError, RefusedError
from dpnorm.gradients import Rows
from dpnorm.norms import ReleasedStatistics, released_statistics


class StatisticsRelease:
    """One vector a record for all layers of a model, clipped as one and released with the gradient.

    A record's vector is what it says of each layer (`ReleasedStatistics.of_rows`, the mean over
    its rows and over the calls of the layer), scaled by 1 / sqrt(2 C L) for C channels and L
    layers, so that its norm is about 1 at most where the statistics are right, whatever the model.
    One record added or removed moves the sum of the clipped vectors by at most `clip`.

    Args:
        model: that holds the layers.
        rows: which rows of a module's output belong to which record, by path.
        clip: the norm to which a record's vector is clipped.

    Raises:
        RefusedError: a layer's rows cannot be told apart by record.
    """

    def __init__(self, model: nn.Module, rows: Mapping[str, Rows], *, clip: float = 1.0) -> None:
        if not (clip > 0 and math.isfinite(clip)):
            raise InputError(f"the statistics' clipping norm is {clip}: it is to be above 0")
        self.clip = clip
        self.layers: list[tuple[ReleasedStatistics, Rows]] = []
        for path, layer in released_statistics(model).items():
            if path not in rows:
                raise RefusedError(
                    f"refused: {path or 'the model'} takes statistics of rows that cannot be told "
                    "apart by record (DPN502): put it where each row belongs to one record"
                )
            self.layers.append((layer, rows[path]))
        self._scales = [
            1 / math.sqrt(2 * len(layer.running_mean) * len(self.layers))
            for layer, _ in self.layers
        ]
        self._pending: list[Tensor] = []
        self._summed: Tensor | None = None

    def said_at(self, place: int, output: Tensor, records: int) -> Tensor:
        """What each record says of one layer in one call: (records, 2C).

        Args:
            place: of the layer in `layers`.
            output: (rows, C, ...), of the layer.
            records: how many.
        """
        layer, rows = self.layers[place]
        said = layer.of_rows(output) * self._scales[place]
        if len(said) == records:
            return said
        return rows.grouped(said, records).mean(1) if records else said[:0]

    def vectors(self, said: Mapping[int, list[Tensor]], records: int) -> Tensor:
        """Each record's vector, not clipped: (records, D).

        Args:
            said: what the records said of each layer, call by call.
            records: how many.
        """
        parts = [
            torch.stack(said[place]).mean(0)
            if said.get(place)
            else layer.uncertainty.new_zeros((records, 2 * len(layer.running_mean)))
            for place, (layer, _) in enumerate(self.layers)
        ]
        return torch.cat([part.to(parts[0]) for part in parts], 1)

    def offer(self, vectors: Tensor, *, beside: bool) -> None:
        """A backward pass is over: its records' vectors wait for the step.

        Args:
            vectors: (records, D).
            beside: keep what waits already, of other batches of the same step.
        """
        self._pending = [*self._pending, vectors] if beside else [vectors]

    def waiting(self) -> Tensor:
        """The vectors that wait for the step: (records, D)."""
        if not self._pending:
            raise InputError(
                "no record has said anything of the statistics: run the model forward and backward "
                "before optimizer.step()"
            )
        return torch.cat(self._pending)

    def forget(self) -> None:
        """Drops the vectors that wait."""
        self._pending = []

    def reset(self) -> None:
        """Drops the vectors that wait and the sum of those that did."""
        self._pending, self._summed = [], None

    def accumulate(self, usable: Tensor) -> None:
        """Adds the clipped vectors that wait to the sum of the logical batch.

        Args:
            usable: (records,) which of them count; others add nothing.
        """
        vectors = self.waiting()
        vectors = vectors.masked_fill(~usable.to(vectors.device)[:, None], 0.0)
        factors = (self.clip / (vectors.norm(dim=1) + 1e-6)).clamp(max=1.0)
        total = factors @ vectors
        self._summed = total if self._summed is None else self._summed + total
        self._pending = []

    def take_sum(self) -> Tensor:
        """The sum of the logical batch, without noise: (D,). The next one begins with nothing."""
        assert self._summed is not None
        total, self._summed = self._summed, None
        return total

    def publish(self, noisy: Tensor, *, expected: float, sigma: float) -> None:
        """Moves the layers' statistics by a noisy sum.

        Args:
            noisy: (D,) of all records of the logical batch, of all processes.
            expected: the expected number of records, a constant.
            sigma: the noise in clipping norms.
        """
        widths = [2 * len(layer.running_mean) for layer, _ in self.layers]
        parts = noisy.split(widths)
        for (layer, _), scale, part in zip(self.layers, self._scales, parts, strict=True):
            unit = scale * expected
            layer.release(part / unit, sigma * self.clip / unit, expected)
