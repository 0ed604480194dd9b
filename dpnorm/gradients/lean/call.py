"""One call of a lean layer in autograd's graph."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpnorm.gradients.lean.layer import LeanLayer
from dpnorm.gradients.outer import Samples, dense


class Sink(Protocol):
    """Who takes the gradients of the records of one call."""

    def begin(self, slope: Tensor) -> float | None:
        """The backward pass has come to the call's output.

        Returns:
            By what the records' gradients are to be multiplied; None where nobody wants them, and
            the parameters get the gradient of the batch as in any other backward pass.
        """

    def group(self, rows: Tensor) -> Tensor:
        """(rows, ...) as (records, rows of each record, ...)."""

    def take(self, samples: Sequence[Samples | None]) -> None:
        """The records' gradients of each of the layer's parameters."""


def lean_call(layer: LeanLayer, x: Tensor, sink: Sink) -> Tensor:
    """The layer's output; its backward pass hands the records' gradients to the sink.

    The parameters get no `.grad` from it.
    """
    return _Call.apply(layer, sink, layer.prepared(x), *layer.parameters)


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layer: LeanLayer, sink: Sink, x: Tensor, weight: Any, bias: Any
    ) -> Tensor:
        output, kept = layer.forward(x, weight, bias)
        ctx.layer, ctx.sink = layer, sink
        ctx.save_for_backward(x, weight, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        # a view of a tensor with a graph has it too, even here
        x, weight, *kept = (None if t is None else t.detach() for t in ctx.saved_tensors)
        scale = ctx.sink.begin(slope)
        of_input, samples = ctx.layer.backward(
            slope,
            x,
            weight,
            kept,
            wanted=ctx.needs_input_grad[2:],
            group=_as_one_record if scale is None else ctx.sink.group,
            scale=1.0 if scale is None else scale,
        )
        if scale is not None:
            ctx.sink.take(samples)
            return None, None, of_input, None, None
        return None, None, of_input, *(None if s is None else dense(s)[0] for s in samples)


def _as_one_record(rows: Tensor) -> Tensor:
    """All rows as those of one record, whose gradient is then that of the batch."""
    return rows[None]
