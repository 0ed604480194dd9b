"""The tracer: a dispatch mode that carries record masks through every operator.

It sits below autograd, so that it sees the operators of the backward pass as well. An operator
without a rule ORs everything it is given into everything it gives, and is reported.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpnorm.provenance.call import Call, tensors_of
from dpnorm.provenance.masks import Mask, any_mixed, bits, broadcast, uniform
from dpnorm.provenance.placeholders import placeholder
from dpnorm.provenance.registry import find_rule
from dpnorm.provenance.rules.pointwise import pointwise
from dpnorm.provenance.table import MaskTable, is_traceable

_ALLOCATORS = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::empty_permuted",
    "aten::new_empty",
    "aten::new_empty_strided",
}
COIN = 64  # elements: a tensor of more is data that was perturbed, not a coin
_ROOT = str(Path(__file__).parents[1]) + os.sep
_TORCH = str(Path(torch.__file__).parent) + os.sep


@dataclass(frozen=True)
class Event:
    """Something that a proof must know of.

    Attributes:
        kind: "mixed" (an element got a second record's bit here), "unknown" (an operator without
            a rule), "escape" (a value left the traced computation) or "ignorable" (a loss that
            would count targets if some were ignored).
        name: the operator, or what saw the escape.
        bits: the records concerned.
        path: the innermost module that was running, "" for the model, None outside of it.
        location: file and line of the innermost frame outside torch, as "file.py:41".
        phase: "forward", "loss" or "backward".
    """

    kind: str
    name: str
    bits: int
    path: str | None
    location: str
    phase: str


@dataclass
class Trace:
    """What a tracer saw, in order."""

    events: list[Event] = field(default_factory=list)
    operators: int = 0

    def of(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if event.kind == kind]


class RecordTracer(TorchDispatchMode):
    """Carries masks; `table` holds them, `trace` what was seen.

    Set `modules` (a stack of paths) and `phase` from outside, so that events know where they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = MaskTable()
        self.trace = Trace()
        self.modules: list[str] = []
        self.phase = "forward"
        self.on_write: Callable[[Tensor], None] | None = None  # before a tensor is written
        self.on_draw: Callable[[Any, Any, Any], None] | None = None  # after a random operator
        self.coins = False  # whether a random draw became a Python number
        self._random: set[int] = set()  # storages of few random elements, and what is made of them
        self.exposed: set[int] = set()  # storages whose memory something outside can read
        self.hooked = False  # whether a tensor got a hook while modes were on
        self.excused: set[str] = set()  # paths of modules whose coupling is judged apart
        self._excused_storages: set[int] = set()
        self._validating = False
        self._numberless = False
        self.inside = False  # while a rule runs: what it does itself is not traced

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.trace.operators += 1
        with self.quietly():
            traceable = all(is_traceable(t) for t in tensors_of((args, kwargs)))
            call = Call(self, func, args, kwargs) if traceable else None
            if call is not None:
                written = call.written()
                if func._schema.name not in _ALLOCATORS:
                    self._require_defined(call, written)
                if self.on_write is not None:
                    for tensor in written:
                        self.on_write(tensor)
        out = None
        if self._numberless and call is not None and not torch.is_grad_enabled():
            out = placeholder(call)
        if out is None:
            out = func(*args, **kwargs)
        with self.quietly():
            if self.on_draw is not None and torch.Tag.nondeterministic_seeded in func.tags:
                self.on_draw(func, args, out)
            if call is None or not all(is_traceable(t) for t in tensors_of(out)):
                self._opaque(func, (args, kwargs), out)
            else:
                call.out = out
                self._assign(call)
        return out

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Marks what runs inside as the tracer's own."""
        before, self.inside = self.inside, True
        try:
            yield
        finally:
            self.inside = before

    @contextmanager
    def without_numbers(self) -> Iterator[None]:
        """Inside, a backward pass is traced whose numbers nobody reads: most are not computed."""
        self._numberless = True
        try:
            yield
        finally:
            self._numberless = False

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Inside, values are read only to refuse wrong input: no escape is reported."""
        before, self._validating = self._validating, True
        try:
            yield
        finally:
            self._validating = before

    def excuse(self, saved: Tensor) -> bool:
        """Whether the innermost running module is excused; if so, remembers what it saved."""
        if not self.modules or self.modules[-1] not in self.excused:
            return False
        self._excused_storages.add(saved.untyped_storage()._cdata)
        return True

    def is_excused(self, saved: Tensor) -> bool:
        """Whether an excused module saved this tensor for its backward pass."""
        return saved.untyped_storage()._cdata in self._excused_storages

    def report_escape(self, kind: str, found: int) -> None:
        """Notes that values carrying these bits left the traced computation."""
        if found and not self._validating:
            self._note("escape", kind, found)

    def bits_of(self, tensor: Tensor) -> int:
        """The bits of all elements of a tensor; every bit for one that masks cannot follow."""
        return self.table.total(tensor) if is_traceable(tensor) else 255

    def report(self, kind: str, name: str, found: int) -> None:
        """Notes an event that was seen above the dispatcher."""
        self._note(kind, name, found)

    def _assign(self, call: Call) -> None:
        """Applies the rule and stores the masks of what the operator gave."""
        func = call.func
        outputs = tensors_of(call.out)
        self._follow_coins(call, outputs)
        found = find_rule(call.name)
        if not outputs and found is None and not call.inputs():
            return  # a marker of the profiler or the like: nothing goes in or out
        if found is None and call.name in _ALLOCATORS:
            for tensor in outputs:
                self.table.write(tensor, uniform(tensor.shape, 0))
                self.table.mark_undefined(tensor)
            return
        if call.name == "aten::randperm":
            for tensor in outputs:  # no permutation that happens to leave records in place
                tensor.copy_(torch.arange(len(tensor)).roll(1))
        if found is None and torch.Tag.pointwise in func.tags and func.namespace == "aten":
            found = pointwise
        if found is None and not call.inputs():
            masks = _for_each(uniform((), 0), outputs)  # a factory or a random source: no bits
        elif found is None:
            self._unknown(call, outputs)
            return
        else:
            try:
                masks = _for_each(found(call), outputs)
            except Exception as error:  # a rule that fails must not hide: it forbids a proof
                self._unknown(call, outputs, f"{call.func.name()} (its rule failed: {error!r})")
                return
        if masks is None:
            return
        self._note_mixing(call, masks)
        for tensor, full in zip(outputs, masks, strict=True):
            if self.exposed and tensor.untyped_storage()._cdata in self.exposed:
                self.report_escape("memory that Python can read", bits(full))
            if func.is_view:
                self.table.note_view(tensor, full)
            else:
                self.table.write(tensor, full)

    def _follow_coins(self, call: Call, outputs: list[Tensor]) -> None:
        """Notes where a random draw decides what Python does: another draw takes another path."""
        drawn = torch.Tag.nondeterministic_seeded in call.func.tags or any(
            t.untyped_storage()._cdata in self._random for t in call.inputs()
        )
        if drawn and call.name == "aten::_local_scalar_dense":
            self.coins = True
        elif drawn:
            small = (t for t in outputs if t.numel() <= COIN)
            self._random.update(t.untyped_storage()._cdata for t in small)

    def _unknown(self, call: Call, outputs: list[Tensor], name: str | None = None) -> None:
        """No rule: everything may depend on everything, what is written in place too."""
        found = call.all_bits()
        self._note("unknown", name or call.func.name(), found)
        for tensor in outputs:
            self.table.write(tensor, uniform(tensor.shape, found))
        for tensor in call.written():
            self.table.write(tensor, uniform(tensor.shape, found))

    def _opaque(self, func: Any, given: Any, out: Any) -> None:
        """Sparse, nested or foreign tensors: outside what masks can follow."""
        found = 255
        self._note("unknown", f"{func.name()} on a tensor without plain storage", found)
        for tensor in [*tensors_of(given), *tensors_of(out)]:
            if is_traceable(tensor):
                self.table.write(tensor, uniform(tensor.shape, found))

    def _require_defined(self, call: Call, written: list[Tensor]) -> None:
        """An allocated tensor that is read before anything seen wrote it was written unseen."""
        writes = {id(tensor) for tensor in written}
        for tensor in call.inputs():
            if id(tensor) not in writes and not self.table.is_defined(tensor):
                if call.func.is_view:
                    continue
                self._note("escape", "memory that was filled out of sight", 255)
                self.table.write(tensor, uniform(tensor.shape, 255))

    def _note_mixing(self, call: Call, masks: list[Mask]) -> None:
        if any(any_mixed(mask) for mask in masks) and not any(
            any_mixed(mask) for mask in (call.mask(t) for t in call.inputs()) if mask is not None
        ):
            found = 0
            for mask in masks:
                found |= bits(mask)
            self._note("mixed", call.name, found)

    def _note(self, kind: str, name: str, found: int) -> None:
        path = self.modules[-1] if self.modules else None
        self.trace.events.append(Event(kind, name, found, path, location(), self.phase))


def _for_each(masks: Mask | Sequence[Mask] | None, outputs: list[Tensor]) -> list[Mask] | None:
    """A rule's answer as one mask of each output's shape."""
    if masks is None:
        return None
    listed = [masks] if isinstance(masks, np.ndarray | np.uint8) else list(masks)
    if len(listed) == 1 and len(outputs) > 1:
        listed *= len(outputs)
    if len(listed) != len(outputs):
        raise ValueError(f"{len(listed)} masks for {len(outputs)} outputs")
    return [broadcast(m, tuple(t.shape)) for m, t in zip(listed, outputs, strict=True)]


def location() -> str:
    """File and line of the innermost frame outside torch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_ROOT, _TORCH)) and "contextlib" not in file:
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
