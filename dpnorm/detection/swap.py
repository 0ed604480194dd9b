"""The swap probe: keep one record, exchange the others, and see what of the record moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.inputs import Inputs, call, map_tensors, random_like, tensors_in
from dpnorm.detection.preserve import SavedState

_LARGE = 10.0  # the exchanged records' scale: an outlier shows more


@dataclass
class Trace:
    """One run: what each module call took and gave, the output, and the state afterwards."""

    calls: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]] = field(default_factory=list)
    output: Any = None
    buffers: dict[tuple[nn.Module, str], Tensor] = field(default_factory=dict)
    parameters: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)


def run(model: nn.Module, inputs: Inputs, state: SavedState, seed: int) -> Trace:
    """Runs the model once with a fixed random state and records every module call."""
    trace = Trace()

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
            given = [t.detach().clone() for t in tensors_in((args, kwargs))]
            made = [t.detach().clone() for t in tensors_in(output)]
            trace.calls.append((path, module, given, made))

        return hook

    handles = [
        module.register_forward_hook(note(path), with_kwargs=True)
        for path, module in model.named_modules()
    ]
    try:
        state.restore_buffers()
        torch.manual_seed(seed)
        with ConstantDraws():
            trace.output = call(model, inputs)
        trace.buffers = state.changed_buffers()
        trace.parameters = state.written_parameters()
    finally:
        for handle in handles:
            handle.remove()
        state.restore_buffers()
    return trace


def swap_others(inputs: Inputs, keep: int, seed: int) -> Inputs:
    """Exchanges every record but `keep` for large random ones; integer values stay in their set."""
    generator = torch.Generator().manual_seed(seed)
    fresh = iter(tensors_in(random_like(inputs, generator)))

    def mixed(tensor: Tensor) -> Tensor:
        other = next(fresh)
        if tensor.is_floating_point():
            other = other * _LARGE
        other = other.clone()
        other[keep] = tensor[keep]
        return other

    return map_tensors(mixed, inputs)


def movement(before: list[Tensor], after: list[Tensor], row: int, batch: int) -> float:
    """The largest change of one record's rows, relative to the largest entry of those rows.

    Tensors whose dimension 0 is not the batch are passed over.
    """
    largest = 0.0
    for a, b in zip(before, after, strict=False):
        if a.dim() == 0 or b.dim() == 0 or len(a) != batch or len(b) != batch:
            continue
        x, y = a[row].double(), b[row].double()
        if x.shape != y.shape:
            return float("inf")
        scale = max(x.abs().max().item(), y.abs().max().item()) if x.numel() else 0.0
        if scale > 0:
            largest = max(largest, ((x - y).abs().max() / scale).item())
    return largest


def replay(module: nn.Module, x: Tensor, state: SavedState, row: int, seed: int) -> float:
    """The movement of one row when a module is run alone on its own input with others swapped."""
    generator = torch.Generator().manual_seed(seed)
    swapped = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) * _LARGE
    swapped[row] = x[row]
    outputs = []
    for batch in (x, swapped):
        torch.manual_seed(seed)
        with ConstantDraws():
            outputs.append([module.forward(batch).detach()])
        state.restore_buffers()
    return movement(outputs[0], outputs[1], row, len(x))
