"""One operator call as a rule sees it: arguments by name, masks, and what came out."""

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
        self._before = {
            id(tensor): tracer.table.read(tensor) for tensor in tensors_of(self.arguments)
        }

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
        return tensors_of(self.arguments)

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
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_of(item)]
    return []


def _by_name(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    named = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            named[argument.name] = args[position]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
        else:
            named[argument.name] = None
    return named
