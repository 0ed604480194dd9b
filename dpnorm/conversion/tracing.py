"""The order in which a model's layers run, where torch.fx can show it; no forward pass."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from dpnorm.conversion.traceable import traceable

_ATTEMPTS = 16  # each attempt sets aside one more kind of module that cannot be followed
_PREFIX = "_tensor_constant"


def _recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: self.tracer.create_proxy(
        "call_function", function, (self, other), {}
    )


class _Proxy(fx.Proxy):
    """Records `a += b` as such; fx on its own takes it for `a = a + b`."""

    __iadd__ = _recorded(operator.iadd)
    __isub__ = _recorded(operator.isub)
    __imul__ = _recorded(operator.imul)
    __itruediv__ = _recorded(operator.itruediv)
    __ipow__ = _recorded(operator.ipow)
    __ifloordiv__ = _recorded(operator.ifloordiv)
    __imatmul__ = _recorded(operator.imatmul)
    __iand__ = _recorded(operator.iand)
    __ior__ = _recorded(operator.ior)
    __ixor__ = _recorded(operator.ixor)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    def __init__(self, leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.leaf = leaf
        self.opaque: set[type[nn.Module]] = set()
        self.failed: type[nn.Module] | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.opaque or self.leaf(m)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or type(m)
            raise


def run_order(model: nn.Module) -> list[fx.Graph] | None:
    """The graphs of a model down to its layers, in training and in evaluation mode.

    Modules without children, torch's own layers and modules that cannot be followed are single
    nodes. None where the model's own forward cannot be followed.
    """
    opaque = {type(m) for m in model.modules() if not traceable(type(m))}
    if type(model) in opaque or "forward" in vars(model):
        return None
    for _ in range(_ATTEMPTS):
        tracer = _Tracer(_is_layer)
        tracer.opaque = opaque
        try:
            return both_modes(model, tracer)
        except Exception:  # whatever the model's code raises on symbolic values
            if tracer.failed is None or tracer.failed in opaque:
                return None
            opaque.add(tracer.failed)
    return None


def own_graphs(block: nn.Module) -> list[fx.Graph] | None:
    """The graphs of a module's own forward, its children as single nodes; None if not traceable.

    A forward with defaults, *args or **kwargs is left alone: what a caller passes is not known.
    """
    parameters = inspect.signature(type(block).forward).parameters.values()
    plain = all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    if not plain or "forward" in vars(block) or not traceable(type(block)):
        return None
    try:
        return both_modes(block, _Tracer(lambda module: True))
    except Exception:  # whatever the block's code raises on symbolic values
        return None


def both_modes(model: nn.Module, tracer: fx.Tracer) -> list[fx.Graph]:
    """Traces a model in training and in evaluation mode; its modes and attributes stay."""
    modes = [(module, module.training) for module in model.modules()]
    before = set(vars(model))
    parameters = list(inspect.signature(type(model).forward).parameters.values())
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    graphs = []
    try:
        with torch.random.fork_rng(devices=[]):
            for training in (True, False):
                for module, _ in modes:
                    module.training = training
                graphs.append(tracer.trace(model, concrete_args=defaults or None))
    finally:
        for module, training in modes:
            module.training = training
        for name in set(vars(model)) - before:
            if name.startswith(_PREFIX):
                delattr(model, name)
    if any(
        node.op == "get_attr" and _PREFIX in str(node.target) for g in graphs for node in g.nodes
    ):
        raise ValueError("the forward method makes tensors of its own")
    return graphs


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return False
    own = type(module).__module__.startswith("torch.nn.")
    return own or not list(module.children()) or "forward" in vars(module)
