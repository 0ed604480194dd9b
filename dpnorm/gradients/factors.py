"""Gradients of records that are kept as what they are made of, and what is asked of them."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, Union

import torch
from torch import Tensor

from dpnorm.errors import RefusedError

PAIRS = 2**18  # products of pairs of the records that stand in the cache together
ROUNDING = 32.0  # epsilons by which a norm that is found from pairs is raised
_VANISHING = 100.0  # square roots of the smallest number, whose squares are 0 or nearly


@dataclass(eq=False)
class Factors(ABC):
    """Each record's gradient of a weight as two factors, from which it could be made.

    Its norm, and a weighted sum over the records, are found without any record's gradient.

    Attributes:
        slopes: (records, ...), of the loss with respect to the layer's outputs.
        inputs: (records, ...), what the layer met.
    """

    slopes: Tensor
    inputs: Tensor
    _versions: tuple[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._versions = (self.slopes._version, self.inputs._version)

    def __len__(self) -> int:
        return self.slopes.shape[0]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.slopes.device

    def require_unchanged(self) -> Self:
        """Itself.

        Raises:
            RefusedError: a factor was written in place, and is another record's perhaps.
        """
        if (self.slopes._version, self.inputs._version) != self._versions:
            raise RefusedError(
                "refused: what a layer was given was written in place before the step that needs "
                "it: give each batch a tensor of its own, or take grad_sample_mode='hooks'"
            )
        return self

    def of(self, slopes: Tensor, inputs: Tensor) -> Self:
        """The gradients of other records of the same layer."""
        return dataclasses.replace(self, slopes=slopes, inputs=inputs)

    def kind(self) -> tuple[Any, ...]:
        """Equal where the records of two can be put together."""
        return (type(self),)

    @abstractmethod
    def dense(self) -> Tensor:
        """The gradients themselves: (records, *shape)."""

    @abstractmethod
    def norms(self) -> Tensor:
        """Of each record's gradient, (records,): never too small by more than rounding."""

    @abstractmethod
    def weighted_sum(self, weights: Tensor) -> Tensor:
        """sum_i weights[i] * gradient of record i, of the parameter's shape."""


@dataclass(eq=False)
class Outer(Factors):
    """An outer product: gradient of record i = slopes[i] inputs[i]^T, (out,) and (in,)."""

    def dense(self) -> Tensor:
        """See `Factors`."""
        return self.slopes[:, :, None] * self.inputs[:, None, :]

    def norms(self) -> Tensor:
        """The product of two norms."""
        return (_length(self.slopes) * _length(self.inputs)).to(_wide(self.slopes[:0]).dtype)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """One matrix product."""
        return (self.slopes * weights[:, None]).T @ self.inputs


@dataclass(eq=False)
class OuterSum(Factors):
    """A sum of outer products: gradient of record i = sum_t slopes[i, t] inputs[i, t]^T.

    The factors are (records, T, out) and (records, T, in).
    """

    @staticmethod
    def pays(rows: int, out: int, given: int) -> bool:
        """Whether T rows of two factors are less than a gradient, and so are pairs of them."""
        return rows * (out + given) < out * given

    def dense(self) -> Tensor:
        """See `Factors`."""
        return self.slopes.transpose(1, 2) @ self.inputs

    def norms(self) -> Tensor:
        """From pairs of rows, where that pays."""
        _, rows, out = self.slopes.shape
        if self.pays(rows, out, self.inputs.shape[2]):
            return norms_from_pairs(self.slopes, self.inputs, _pairs)
        found = row_norms(self.dense())
        lengths = [torch.linalg.vector_norm(f, dim=2) for f in (self.slopes, self.inputs)]
        return found + ROUNDING * torch.finfo(found.dtype).eps * (lengths[0] * lengths[1]).sum(1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """One matrix product over the rows of all records."""
        slopes = (self.slopes * weights[:, None, None]).flatten(0, 1)
        return slopes.T @ self.inputs.flatten(0, 1)


# One gradient a record of one parameter: (records, *shape), or as factors
Samples = Union[Tensor, Factors]  # noqa: UP007 - `|` with a string or a tensor class at run time


def norms_from_pairs(
    slopes: Tensor, inputs: Tensor, pairs_of_inputs: Callable[[Tensor], Tensor]
) -> Tensor:
    """The norms of sum_t s_t w_t^T, without these sums.

        |sum_t s_t w_t^T|^2 = sum_{t,u} (s_t . s_u) (w_t . w_u)

    Terms of both signs can cancel, and a norm that comes out too small would let a record through
    with more than the clipping norm. With M = sum_t |s_t| |w_t| the square is raised by what
    rounding can take from it, ROUNDING epsilons of M^2, and the norm by ROUNDING epsilons of M, by
    which the rounding of the gradient itself moves it, and by what products that vanish could add
    up to. Where a product is too large for a number, factors are divided by their largest value.

    Args:
        slopes: (records, T, out), s_t.
        inputs: (records, ...), from which w_t are made, linearly.
        pairs_of_inputs: gives (n, T, T), w_t . w_u, for some of the inputs.

    Returns:
        (records,), in single precision at least.

    Source: Goodfellow, arXiv 1510.01799; on sequences Li et al., arXiv 2110.05679; in convolutions
    Bu et al., arXiv 2205.10683. The bounds on rounding are ours.
    """
    slopes, inputs = _wide(slopes), _wide(inputs)
    found = _from_pairs(slopes, inputs, pairs_of_inputs)
    large = ~found.isfinite()
    if bool(large.any()):  # of these records alone: nobody's norm depends on the others
        (slopes, largest), (inputs, of_inputs) = _scaled(slopes[large]), _scaled(inputs[large])
        found[large] = _from_pairs(slopes, inputs, pairs_of_inputs) * (largest * of_inputs)
    return found


def _from_pairs(
    slopes: Tensor, inputs: Tensor, pairs_of_inputs: Callable[[Tensor], Tensor]
) -> Tensor:
    """See `norms_from_pairs`: of factors as they are."""
    precision = torch.finfo(slopes.dtype)
    slack, vanished = ROUNDING * precision.eps, _VANISHING * math.sqrt(precision.tiny)
    found = []
    size = max(1, PAIRS // slopes.shape[1] ** 2)
    for start in range(0, len(slopes), size):
        some = slice(start, start + size)
        pairs = _pairs(slopes[some]), pairs_of_inputs(inputs[some]).to(slopes.dtype)
        square = torch.bmm(pairs[0].flatten(1)[:, None], pairs[1].flatten(1)[:, :, None])[:, 0, 0]
        lengths = [p.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt() for p in pairs]
        most = (lengths[0] * lengths[1]).sum(1)
        lost = vanished * (lengths[0] + lengths[1] + 1).sum(1)
        found.append((square.clamp_min(0) + slack * most.square()).sqrt() + slack * most + lost)
    return torch.cat(found)


def _pairs(rows: Tensor) -> Tensor:
    """(n, T, d) to (n, T, T)."""
    return rows @ rows.transpose(1, 2)


def _scaled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each record's values over the largest of them, and this.

    Squares of tiny values would vanish, and a huge other factor make up for them.
    """
    rows = _wide(rows)
    if not rows.is_floating_point():  # indices
        return rows, torch.ones(len(rows), device=rows.device)
    if not rows.shape[1:].numel():
        return rows, rows.new_zeros(len(rows))
    largest = rows.abs().amax(tuple(range(1, rows.dim())))
    divisor = largest.masked_fill(largest == 0, 1.0)
    return rows / divisor.view(-1, *[1] * (rows.dim() - 1)), largest


def _length(rows: Tensor) -> Tensor:
    """Each row's norm in double precision, whose squares of single ones neither vanish nor end."""
    if rows.dtype != torch.float64:
        return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    scaled, largest = _scaled(rows)
    return torch.linalg.vector_norm(scaled, dim=1) * largest


def dense(samples: Samples) -> Tensor:
    """The gradients as one tensor (records, *shape)."""
    return samples.require_unchanged().dense() if isinstance(samples, Factors) else samples


def joined(parts: Sequence[Samples]) -> Samples:
    """The records of several batches, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    factors = [part for part in parts if isinstance(part, Factors)]
    if isinstance(first, Factors) and {f.kind() for f in factors} == {first.kind()}:
        alike = {(f.slopes.shape[1:], f.inputs.shape[1:]) for f in factors}
        if len(factors) == len(parts) and len(alike) == 1:
            for part in factors:
                part.require_unchanged()
            return first.of(
                torch.cat([part.slopes for part in factors]),
                torch.cat([part.inputs for part in factors]),
            )
    return torch.cat([dense(part) for part in parts])


def added(first: Samples | None, second: Samples) -> Samples:
    """What two uses of one parameter yield together, record by record."""
    return second if first is None else dense(first) + dense(second)


def row_norms(samples: Samples) -> Tensor:
    """The norm of each record's gradient: (records,); half precision is widened first."""
    if isinstance(samples, Factors):
        if not len(samples):
            return _wide(samples.slopes).new_zeros(0)
        return samples.require_unchanged().norms()
    if not samples.numel():
        return samples.new_zeros(len(samples))
    return torch.linalg.vector_norm(_wide(samples).reshape(samples.shape[0], -1), dim=1)


def weighted_sum(samples: Samples, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """sum_i weights[i] * gradient of record i, in single precision at least.

    Args:
        samples: of the records.
        weights: (records,).
        dtype: of the parameter; the sum is not less precise.

    Returns:
        A tensor of the parameter's shape.
    """
    if isinstance(samples, Factors):
        samples.require_unchanged()
        wide = samples.of(_wide(samples.slopes, dtype), _wide(samples.inputs, dtype))
        return wide.weighted_sum(weights.to(wide.slopes))
    rows = _wide(samples, dtype)
    total = weights.to(rows) @ rows.reshape(rows.shape[0], -1) if rows.numel() else rows.sum(0)
    return total.reshape(rows.shape[1:])


def without(samples: Samples, usable: Tensor) -> Samples:
    """The gradients with zeros in the place of those that are not usable, whatever they hold."""
    if isinstance(samples, Factors):
        samples.require_unchanged()
        return samples.of(_blanked(samples.slopes, usable), _blanked(samples.inputs, usable))
    return _blanked(samples, usable)


def _blanked(rows: Tensor, usable: Tensor) -> Tensor:
    return rows.masked_fill(~usable.to(rows.device).view(-1, *[1] * (rows.dim() - 1)), 0.0)


def _wide(rows: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """In float32 at least: half precision would round sums by more than noise hides.

    Indices stay what they are.
    """
    if rows.dtype in (dtype, torch.float64) and dtype.itemsize >= 4:
        return rows
    if not rows.is_floating_point():
        return rows
    return rows.to(torch.promote_types(torch.promote_types(rows.dtype, dtype), torch.float32))
