"""Model inputs as check, sensitivity and convert take them: a tensor, a tuple, or keywords."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Runs `model` on inputs given as one tensor, a tuple of arguments, or keyword arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Applies `function` to every tensor in nested tuples, lists and dicts; keeps the rest."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [map_tensors(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def first_records(value: Any, count: int) -> Any:
    """The first rows of every tensor."""
    return map_tensors(lambda t: t[:count] if t.dim() else t, value)


def with_last_repeated(value: Any) -> Any:
    """Every tensor with its last row repeated."""
    return map_tensors(lambda t: torch.cat([t, t[-1:]]) if t.dim() else t, value)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists, dicts and dataclass-like outputs, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [t for name in value.__dataclass_fields__ for t in tensors_in(getattr(value, name))]
    if hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        return [t for item in vars(value).values() for t in tensors_in(item)]
    return []


def batch_size(inputs: Inputs, *, least: int = 2) -> int:
    """The number of records: the common length of dimension 0 of the input tensors.

    Raises:
        InputError: no tensor, a tensor without dimensions, lengths that differ, or fewer than
            `least` records.
    """
    tensors = tensors_in(inputs)
    if not tensors:
        raise InputError(
            f"inputs hold no tensor (got {type(inputs).__name__}): pass a tensor of shape "
            "(B, ...), a tuple of them, or a dict of keyword tensors"
        )
    if any(tensor.dim() == 0 for tensor in tensors):
        raise InputError("an input tensor has no dimensions: dimension 0 must be the batch")
    sizes = {len(tensor) for tensor in tensors}
    if len(sizes) > 1:
        raise InputError(
            f"the input tensors have {sorted(sizes)} records in dimension 0: they must agree"
        )
    size = sizes.pop()
    if size < least:
        raise InputError(f"the inputs hold {size} record(s): at least {least} are needed")
    return size


def check_device(model: nn.Module, inputs: Inputs) -> None:
    """Raises an InputError when the inputs stand on another device than the model."""
    devices = {str(p.device) for p in [*model.parameters(), *model.buffers()]}
    given = {str(tensor.device) for tensor in tensors_in(inputs)}
    if devices and len(devices) == 1 and given and given != devices:
        raise InputError(
            f"the inputs are on {', '.join(sorted(given))}, the model on {devices.pop()}: "
            "move the inputs with .to(device)"
        )


def random_like(inputs: Inputs, generator: torch.Generator, *, normal: bool = True) -> Inputs:
    """Inputs of the same shapes, with standard normal values where floating point.

    Other tensors, and without `normal` all of them, get values drawn from those that they hold, so
    that indices and what a model checks stay in range.
    """

    def fresh(tensor: Tensor) -> Tensor:
        if normal and tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            return noise.to(tensor)
        if not tensor.numel():
            return tensor.clone()
        chosen = torch.randint(tensor.numel(), (tensor.numel(),), generator=generator)
        return tensor.flatten()[chosen.to(tensor.device)].view(tensor.shape)

    return map_tensors(fresh, inputs)
