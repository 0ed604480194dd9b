"""Embedding: a record moves only the rows that it looks up, and no other is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.gradients.factors import Factors, norms_from_pairs
from dpnorm.gradients.lean.layer import Forward, Gradients, Group, LeanLayer, Parameters, lean

_INDICES = (torch.int64, torch.int32)


@dataclass(eq=False)
class Embedded(Factors):
    """The gradient of a table (size, width): slopes (records, T, width) at rows (records, T)."""

    size: int

    def kind(self) -> tuple[Any, ...]:
        return (*super().kind(), self.size)

    def dense(self) -> Tensor:
        """See `Factors`."""
        return self._added(self.slopes, self.inputs + self._offsets(), len(self) * self.size).view(
            len(self), self.size, -1
        )

    def norms(self) -> Tensor:
        """From the inner products of slopes at each two places with the same row of the table."""
        return norms_from_pairs(self.slopes, self.inputs, _same)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """See `Factors`."""
        return self._added(self.slopes * weights[:, None, None], self.inputs, self.size)

    def _offsets(self) -> Tensor:
        return self.size * torch.arange(len(self), device=self.device)[:, None]

    def _added(self, slopes: Tensor, places: Tensor, size: int) -> Tensor:
        slopes = slopes.flatten(0, 1)
        return slopes.new_zeros(size, slopes.shape[1]).index_add_(0, places.flatten(), slopes)


def _same(indices: Tensor) -> Tensor:
    """(n, T) to (n, T, T): 1 where two are equal, else 0."""
    return (indices[:, :, None] == indices[:, None, :]).to(torch.float32)


@lean(nn.Embedding)
def embedding(module: nn.Embedding) -> LeanLayer | None:
    """The lean layer of an embedding whose gradient is of each record alone."""
    coupled = module.scale_grad_by_freq or module.max_norm is not None
    return None if coupled or module.sparse else LeanEmbedding(module)


class LeanEmbedding(LeanLayer):
    """Rows of a table: (rows, ...) of indices to (rows, ..., width)."""

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        return (self.module.weight,)

    def serves(self, *args: Any) -> bool:
        """Whether it is given indices alone."""
        x = args[0] if args else None
        return (
            len(args) == 1
            and isinstance(x, Tensor)
            and x.dtype in _INDICES
            and x.dim() >= 1
            and x.numel() > 0
            and self.module.weight.dtype in (torch.float32, torch.float64)
        )

    def takes(self, x: Tensor) -> bool:
        return True

    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        weight = parameters[0]
        assert weight is not None
        return F.embedding(x, weight), ()

    def backward(
        self,
        slope: Tensor,
        x: Tensor,
        parameters: Parameters,
        kept: Sequence[Tensor],
        *,
        wanted: Sequence[bool],
        group: Group,
        scale: float,
    ) -> Gradients:
        """See `LeanLayer`. The row of `padding_idx` is not moved."""
        if not wanted[1]:
            return None, [None]
        slopes = group(slope.flatten(1, -2) if slope.dim() > 2 else slope[:, None]).flatten(1, 2)
        indices = group(x.reshape(len(x), -1)).flatten(1)
        slopes = slopes * scale
        if self.module.padding_idx is not None:
            slopes = slopes.masked_fill((indices == self.module.padding_idx)[:, :, None], 0.0)
        found = Embedded(slopes, indices, self.module.num_embeddings)
        places, width = slopes.shape[1:]
        # pairs of places cost more than the table where that is small
        keeps = places * (width + places) < self.module.num_embeddings * width
        return None, [found if keeps else found.dense()]
