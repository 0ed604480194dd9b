"""One call of a lean layer in autograd's graph."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpnorm.gradients.factors import Samples, dense
from dpnorm.gradients.lean.layer import LeanLayer


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


def lean_call(layer: LeanLayer, args: tuple[Tensor, ...], sink: Sink) -> Tensor:
    """The layer's output; its backward pass hands the records' gradients to the sink.

    The parameters get no `.grad` from it.

    Args:
        layer: which serves the arguments.
        args: the input, and constants behind it.
        sink: takes the gradients.
    """
    x, *constants = args
    return _Call.apply(layer, sink, tuple(constants), layer.prepared(x), *layer.parameters)


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layer: LeanLayer,
        sink: Sink,
        constants: tuple[Tensor, ...],
        x: Tensor,
        *parameters: Any,
    ) -> Tensor:
        output, kept = layer.forward(x, parameters, constants)
        ctx.layer, ctx.sink, ctx.count = layer, sink, len(parameters)
        ctx.save_for_backward(x, *parameters, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        # a view of a tensor with a graph has it too, even here
        saved = [None if t is None else t.detach() for t in ctx.saved_tensors]
        x, parameters, kept = saved[0], saved[1 : 1 + ctx.count], saved[1 + ctx.count :]
        scale = ctx.sink.begin(slope)
        of_input, samples = ctx.layer.backward(
            slope,
            x,
            parameters,
            kept,
            wanted=ctx.needs_input_grad[3:],
            group=_as_one_record if scale is None else ctx.sink.group,
            scale=1.0 if scale is None else scale,
        )
        if scale is not None:
            ctx.sink.take(samples)
            return None, None, None, of_input, *([None] * len(samples))
        whole = [None if found is None else dense(found)[0] for found in samples]
        return None, None, None, of_input, *whole


def _as_one_record(rows: Tensor) -> Tensor:
    """All rows as those of one record, whose gradient is then that of the batch."""
    return rows[None]
