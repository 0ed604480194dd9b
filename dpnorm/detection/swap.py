"""The swap probe: keep one record, exchange the others, and see what of the record moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws, seed_draws
from dpnorm.detection.inputs import Inputs, call, map_tensors, random_like, tensors_in
from dpnorm.detection.movement import movement
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
        seed_draws(seed)
        with ConstantDraws():
            trace.output = call(model, inputs)
        trace.buffers = state.changed_buffers()
        trace.parameters = state.written_parameters()
    finally:
        for handle in handles:
            handle.remove()
        state.restore_buffers()
    return trace


def plain_run(model: nn.Module, inputs: Inputs, state: SavedState, seed: int) -> Any:
    """The model's output with constant random draws; state is as before, before and after."""
    state.restore_buffers()
    seed_draws(seed)
    try:
        with ConstantDraws():
            return call(model, inputs)
    finally:
        state.restore_buffers()


@dataclass(frozen=True)
class Exchange:
    """What other records are exchanged for.

    Attributes:
        seed: of what is drawn.
        large: normal values of ten times the usual size, since an outlier shows more; else values
            of the batch itself, for models that refuse what is out of range.
    """

    seed: int
    large: bool = True

    def others(self, inputs: Inputs, keep: int) -> Inputs:
        """Every record but `keep` is another one."""

        def mixed(tensor: Tensor, fresh: Tensor) -> Tensor:
            fresh[keep] = tensor[keep]
            return fresh

        return self._mixed(inputs, mixed)

    def one(self, inputs: Inputs, record: int) -> Inputs:
        """One record is another one."""

        def mixed(tensor: Tensor, fresh: Tensor) -> Tensor:
            copy = tensor.clone()
            copy[record] = fresh[record]
            return copy

        return self._mixed(inputs, mixed)

    def _mixed(self, inputs: Inputs, mix: Callable[[Tensor, Tensor], Tensor]) -> Inputs:
        generator = torch.Generator().manual_seed(self.seed)
        fresh = iter(tensors_in(random_like(inputs, generator, normal=self.large)))

        def mixed(tensor: Tensor) -> Tensor:
            other = next(fresh)
            scaled = self.large and tensor.is_floating_point()
            return mix(tensor, other * _LARGE if scaled else other.clone())

        return map_tensors(mixed, inputs)


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
