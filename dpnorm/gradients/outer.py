"""Gradients of records that are outer products, kept as their two factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import torch
from torch import Tensor


@dataclass(eq=False)
class Outer:
    """Each record's gradient of a weight (out, in) as the outer product of two vectors.

        gradient of record i = slopes[i] activations[i]^T

    Its norm is the product of two norms, and a weighted sum over the records is one matrix
    product, so that no record's gradient is ever built.

    Attributes:
        slopes: (records, out), of the loss with respect to the layer's outputs.
        activations: (records, in), the layer's inputs.
    """

    slopes: Tensor
    activations: Tensor

    def __len__(self) -> int:
        return len(self.slopes)

    @property
    def device(self) -> torch.device:
        return self.slopes.device

    def dense(self) -> Tensor:
        """The gradients themselves: (records, out, in)."""
        return self.slopes[:, :, None] * self.activations[:, None, :]


# One gradient a record of one parameter: (records, *shape), or as factors
Samples = Union[Tensor, Outer]  # noqa: UP007 - `|` with a string or a tensor class at run time


def dense(samples: Samples) -> Tensor:
    """The gradients as one tensor (records, *shape)."""
    return samples.dense() if isinstance(samples, Outer) else samples


def joined(parts: Sequence[Samples]) -> Samples:
    """The records of several batches, one after the other."""
    if len(parts) == 1:
        return parts[0]
    factors = [part for part in parts if isinstance(part, Outer)]
    if len(factors) == len(parts):
        return Outer(
            torch.cat([part.slopes for part in factors]),
            torch.cat([part.activations for part in factors]),
        )
    return torch.cat([dense(part) for part in parts])


def added(first: Samples | None, second: Samples) -> Samples:
    """What two uses of one parameter yield together, record by record."""
    return second if first is None else dense(first) + dense(second)


def row_norms(samples: Samples) -> Tensor:
    """The norm of each record's gradient: (records,); half precision is widened first."""
    if isinstance(samples, Outer):
        slope, of_slope = _scaled_norms(samples.slopes)
        activation, of_activation = _scaled_norms(samples.activations)
        return (slope * activation) * (of_slope * of_activation)
    if not samples.numel():
        return samples.new_zeros(len(samples))
    wide = samples.float() if samples.dtype in (torch.float16, torch.bfloat16) else samples
    return torch.linalg.vector_norm(wide.reshape(len(samples), -1), dim=1)


def _scaled_norms(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Factors whose product is each row's norm: that of the row over its largest value, and this.

    Squares of tiny values would vanish, and a huge other factor make up for them.
    """
    wide = _wide(rows, rows.dtype)
    largest = wide.abs().amax(1) if wide.shape[1] else wide.new_zeros(len(wide))
    largest = torch.where(largest == 0, torch.ones_like(largest), largest)
    return torch.linalg.vector_norm(wide / largest[:, None], dim=1), largest


def weighted_sum(samples: Samples, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """sum_i weights[i] * gradient of record i, in single precision at least.

    Args:
        samples: of the records.
        weights: (records,).
        dtype: of the parameter; the sum is not less precise.

    Returns:
        A tensor of the parameter's shape.
    """
    if isinstance(samples, Outer):
        slopes, activations = _wide(samples.slopes, dtype), _wide(samples.activations, dtype)
        return (slopes * weights.to(slopes)[:, None]).T @ activations
    wide = _wide(samples, dtype)
    total = weights.to(wide) @ wide.reshape(len(wide), -1) if wide.numel() else wide.sum(0)
    return total.reshape(wide.shape[1:])


def without(samples: Samples, usable: Tensor) -> Samples:
    """The gradients with zeros in the place of those that are not usable, whatever they hold."""
    if isinstance(samples, Outer):
        return Outer(_blanked(samples.slopes, usable), _blanked(samples.activations, usable))
    return _blanked(samples, usable)


def _blanked(rows: Tensor, usable: Tensor) -> Tensor:
    return rows.masked_fill(~usable.to(rows.device).view(-1, *[1] * (rows.dim() - 1)), 0.0)


def _wide(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """In float32 at least: half precision would round sums by more than noise hides."""
    return rows.to(torch.promote_types(torch.promote_types(rows.dtype, dtype), torch.float32))
