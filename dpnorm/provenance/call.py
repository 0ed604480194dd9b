"""One operator call as a rule sees it: arguments by name, masks, and what came out."""

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dpnorm.provenance.masks import Mask, bits, union

if TYPE_CHECKING:
    from dpnorm.provenance.tracer import RecordTracer


class Call:
    """An operator call after it ran, with the masks from before.

    Attributes:
        func: the overload, such as aten.add.Tensor.
        name: its name without the overload, such as "aten::add".
        arguments: every argument by its name in the schema, defaults included.
        out: what the operator returned.
    """

    def __init__(
        self, tracer: "RecordTracer", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._tracer = tracer
        self.func = func
        self.name: str = func._schema.name
        self.arguments = _by_name(func, args, kwargs)
        self.out: Any = None
        self._inputs = tensors_of(self.arguments)
        self._before = {id(tensor): tracer.table.read(tensor) for tensor in self._inputs}

    def __getitem__(self, name: str) -> Any:
        """An argument by its name in the operator's schema."""
        return self.arguments[name]

    def mask(self, argument: str | Tensor | None) -> Mask | None:
        """The mask, from before the call, of an argument given by name or as the tensor."""
        tensor = self.arguments.get(argument) if isinstance(argument, str) else argument
        return None if tensor is None else self._before[id(tensor)]

    def bits(self, *arguments: str | Tensor | None) -> int:
        """All bits of the named arguments together; an absent one has none."""
        found = 0
        for argument in arguments:
            mask = self.mask(argument)
            if mask is not None:
                found |= bits(mask)
        return found

    def all_bits(self) -> int:
        """All bits of all tensor arguments."""
        found = 0
        for mask in self._before.values():
            found |= bits(mask)
        return found

    def inputs(self) -> list[Tensor]:
        """Every tensor argument, those in lists too."""
        return self._inputs

    def written(self) -> list[Tensor]:
        """The tensors that the operator's schema says it writes."""
        return [t for name in _written(self.func) for t in tensors_of(self.arguments[name])]

    def read_arguments(self) -> list[str]:
        """The names of the arguments but for out=, which is written and not read."""
        return [a.name for a in self.func._schema.arguments if not a.is_out]

    def union(self, shape: tuple[int, ...], *masks: Mask | None) -> Mask:
        """OR of masks that broadcast to a shape; None is left out."""
        return union(shape, [mask for mask in masks if mask is not None])

    def write(self, tensor: Tensor | None, mask: Mask) -> None:
        """Sets the mask of an argument that the operator writes but does not return."""
        if tensor is not None:
            self._tracer.table.write(tensor, mask)

    def excuse(self, saved: Tensor) -> bool:
        """Whether the module that runs is excused from coupling, and known to be judged apart.

        `saved` goes from the forward to the backward kernel and carries the excuse there.
        """
        return self._tracer.excuse(saved)

    def is_excused(self, saved: Tensor | None) -> bool:
        """Whether a forward kernel that saved this tensor was excused."""
        return saved is not None and self._tracer.is_excused(saved)

    def escape(self, kind: str, found: int) -> None:
        """Reports that values carrying these bits left the traced computation."""
        self._tracer.report_escape(kind, found)


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    found = []
    for item in value:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple, dict)):
            found += tensors_of(item)
    return found


@functools.cache
def _parameters(func: torch._ops.OpOverload) -> list[tuple[str, Any]]:
    """Names and defaults of an operator's arguments; None where there is no default."""
    return [
        (argument.name, argument.default_value if argument.has_default_value() else None)
        for argument in func._schema.arguments
    ]


@functools.cache
def _written(func: torch._ops.OpOverload) -> list[str]:
    """The names of the arguments that an operator writes."""
    return [
        argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _by_name(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    named = dict(_parameters(func))
    named.update(kwargs)
    for (name, _), value in zip(_parameters(func), args, strict=False):
        named[name] = value
    return named
