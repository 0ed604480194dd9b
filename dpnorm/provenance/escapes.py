"""Seeing values leave the dispatcher: into numpy, Python lists, raw pointers and other libraries.

What happens to a value out there cannot be followed, so an escape of a value that carries a bit
forbids a proof. Values that become Python numbers (`item`, `bool`, `float`) pass the dispatcher
and are seen by the tracer itself.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from dpnorm.provenance.call import tensors_of
from dpnorm.provenance.equivalents import cross_entropy
from dpnorm.provenance.tracer import RecordTracer

_ESCAPES = {
    "numpy",
    "__array__",
    "tolist",
    "data_ptr",
    "__dlpack__",
    "__array_interface__",
    "__cuda_array_interface__",
    "storage",
    "untyped_storage",
    "_typed_storage",
    "share_memory_",
    "map_",
    "apply_",
    "map2_",
    "__reduce_ex__",
    "to_dlpack",
    "_to_dlpack",
    "_cdata",
    "const_data_ptr",
    "mutable_data_ptr",
    "__repr__",
    "__str__",
    "__format__",
}

_CONSTRUCTORS = {"tensor", "as_tensor", "asarray", "new_tensor", "new", "__new__", "__init__"}
_IMPORTS = {"from_numpy", "frombuffer", "from_file", "from_dlpack"}
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}


class EscapeWatch(TorchFunctionMode):
    """Reports to a tracer the methods that let a tensor's memory or values out."""

    def __init__(self, tracer: RecordTracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if name in _ESCAPES and not self._tracer.inside:
            found = 0
            with self._tracer.quietly():
                for tensor in tensors_of((args, kwargs)):
                    found |= self._tracer.bits_of(tensor)
                    self._tracer.exposed.add(tensor.untyped_storage()._cdata)
            self._tracer.report_escape(name, found)
        reads = getattr(func, "__name__", "") == "__get__" and name == "grad"
        if reads and self._tracer.phase == "forward" and not self._tracer.inside:
            self._tracer.report_escape("grad of an earlier batch", 255)
        if name in _CONSTRUCTORS and not self._tracer.inside:
            self._report_elements(name, args, kwargs)
        if name == "tensor_split" and not self._tracer.inside:
            self._report_elements(name, (list(args[1:]), list(kwargs.values())), {})
        if name in _IMPORTS:
            tensor = func(*args, **kwargs)
            with self._tracer.quietly():
                self._tracer.exposed.add(tensor.untyped_storage()._cdata)
            return tensor
        if name in _HOOKS and not self._tracer.inside:
            self._tracer.hooked = True
        if name == "one_hot" and _class_count(args, kwargs) > 0:
            with self._tracer.validating():  # looks at the labels only to check their range
                return func(*args, **kwargs)
        if func is F.cross_entropy:
            loss = cross_entropy(self._tracer, args, kwargs)
            if loss is not None:
                return loss
        return func(*args, **kwargs)

    def _report_elements(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A constructor reads the elements of tensors in its lists where no operator is seen."""
        found = 0
        lists = [value for value in (*args, *kwargs.values()) if isinstance(value, (list, tuple))]
        with self._tracer.quietly():
            for tensor in tensors_of(lists):
                found |= self._tracer.bits_of(tensor)
        self._tracer.report_escape(name, found)


def _class_count(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The number of classes that one_hot was given; without one it depends on the labels."""
    found = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    return found if isinstance(found, int) else -1


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", "")
    if name == "__get__":  # a property: the descriptor's own name
        owner = getattr(func, "__self__", None)
        name = getattr(owner, "__name__", "")
    return name


def eager() -> Any:
    """A context in which compiled submodules run as they were written, operator by operator."""
    return torch.compiler.set_stance("force_eager")
