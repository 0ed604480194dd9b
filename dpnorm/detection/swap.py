"""The swap probe: keep one record, exchange the others, and see what of the record moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.inputs import Inputs, call, map_tensors, random_like, tensors_in
from dpnorm.detection.preserve import SavedState

_POSITIONS = 4  # along each dimension behind the channel: a normalization takes any number
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


def swap_one(inputs: Inputs, record: int, seed: int) -> Inputs:
    """Exchanges one record for a large random one."""
    generator = torch.Generator().manual_seed(seed)
    fresh = iter(tensors_in(random_like(inputs, generator)))

    def mixed(tensor: Tensor) -> Tensor:
        other = next(fresh)
        copy = tensor.clone()
        copy[record] = other[record] * (_LARGE if tensor.is_floating_point() else 1)
        return copy

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


def moved_by_others(module: nn.Module, x: Tensor, seed: int) -> float:
    """How far the first row of a normalization moves when other rows stand beside it.

    The module runs on copies of its buffers, so that its own stay as autograd saved them, and with
    scale 1 and shift 0: a scale that starts at zero would hide what the layer does once it learns.

    Args:
        module: a layer of one input with an affine part or without.
        x: what it was given, (B, ...).
        seed: of the other rows.
    """
    buffers, parameters = dict(module._buffers), dict(module._parameters)
    generator = torch.Generator().manual_seed(seed)
    x = x.detach()[(slice(None), slice(None), *[slice(0, _POSITIONS)] * (x.dim() - 2))]
    swapped = torch.randn(x.shape, generator=generator).to(x) * _LARGE
    swapped[0] = x[0]
    try:
        for name, start in (("weight", 1.0), ("bias", 0.0)):
            parameter = parameters.get(name)
            if parameter is not None:
                like = torch.full_like(parameter, start)
                module._parameters[name] = nn.Parameter(like, requires_grad=False)
        outputs = []
        for rows in (x, swapped):
            for name, buffer in buffers.items():
                module._buffers[name] = None if buffer is None else buffer.clone()
            with torch.no_grad():
                outputs.append(module.forward(rows))
    finally:
        module._buffers.update(buffers)
        module._parameters.update(parameters)
    return movement([outputs[0]], [outputs[1]], 0, len(x))
