"""Which values of a traced graph may share memory, and what an in-place operation changes."""

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}
_ARITHMETIC = {
    "add", "sub", "mul", "div", "pow", "neg", "abs", "exp", "sqrt", "rsqrt", "relu", "sigmoid",
    "tanh", "clamp", "clamp_min", "clamp_max", "addcmul", "addcdiv", "lerp", "masked_fill",
}  # fmt: skip
_VIEWS = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "transpose", "permute",
    "t", "squeeze", "unsqueeze", "expand", "expand_as", "narrow", "select", "chunk", "split",
    "unbind", "movedim", "swapaxes", "swapdims", "contiguous", "to", "float", "double", "half",
    "type", "type_as", "detach", "real", "diagonal", "unfold", "getitem", "getattr", "dropout",
    "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "stochastic_depth", "drop_path",
    "broadcast_to", "tensor_split", "requires_grad_",
}  # fmt: skip
_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd, nn.Flatten, nn.Unflatten)


class Aliases:
    """Groups of nodes whose values may share memory.

    Args:
        graph: a traced graph.
        modules: the modules that its nodes call, by path.
    """

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
        self._parent: dict[fx.Node, fx.Node] = {}
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        for node in graph.nodes:
            if may_alias(node, modules):
                first = node.args[0] if node.args else None
                given = [first] if isinstance(first, fx.Node) else node.all_input_nodes
                for source in given:
                    self._parent[self._root(source)] = self._root(node)

    def group(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that may share memory with `node`, itself among them."""
        return [other for other in self.order if self._root(other) is self._root(node)]

    def read_after(self, value: fx.Node, change: fx.Node) -> list[fx.Node]:
        """Members of the group of `value`, but not `change`, that something reads after it."""
        return [
            member
            for member in self.group(value)
            if self.order[member] < self.order[change]
            and any(self.order[user] > self.order[change] for user in member.users)
        ]

    def _root(self, node: fx.Node) -> fx.Node:
        while (above := self._parent.get(node, node)) is not node:
            node = above
        return node


def may_alias(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node's value may be a view of its input, or the input itself."""
    if node.op == "call_module":
        return _passes_on(modules[str(node.target)])
    if node.op == "call_function":
        changing = node.target in _OPERATORS or functional_inplace(node) is not None
        return changing or getattr(node.target, "__name__", "") in _VIEWS
    if node.op == "call_method":
        name = str(node.target)
        return name in _VIEWS or (name.endswith("_") and not name.endswith("__"))
    return False


def _passes_on(module: nn.Module) -> bool:
    """Whether a module may return its input itself, or a view of it."""
    if isinstance(module, nn.Sequential):
        return all(_passes_on(child) for child in module)
    name = type(module).__name__
    by_name = "Identity" in name or "Drop" in name
    return by_name or isinstance(module, _PASSING) or getattr(module, "inplace", False) is True


def out_of_place(node: fx.Node) -> Callable[[], None] | None:
    """How to make a node's operation out of place; None where it is not a known in-place one."""
    if node.op == "call_function":
        if node.target in _OPERATORS:
            return lambda: setattr(node, "target", _OPERATORS[node.target])
        if (change := functional_inplace(node)) is not None:
            return change
        name = getattr(node.target, "__name__", "")
        plain = _plain_name(name)
        if plain is not None and getattr(torch, name, None) is node.target:
            function = getattr(torch, plain)
            return lambda: setattr(node, "target", function)
    if node.op == "call_method":
        plain = _plain_name(str(node.target))
        if plain is not None and hasattr(Tensor, plain):
            return lambda: setattr(node, "target", plain)
    return None


def changes_unclearly(node: fx.Node) -> bool:
    """Whether a node writes to memory in a way that is not rewritten."""
    name = getattr(node.target, "__name__", str(node.target))
    if "out" in node.kwargs or node.target in (operator.setitem, operator.delitem):
        return True
    called = node.op in ("call_function", "call_method")
    writes = called and name.endswith("_") and not name.endswith("__")
    other = node.op == "call_function" and name in {"iand", "ior", "ixor", "ifloordiv", "imatmul"}
    return (writes or other) and out_of_place(node) is None


def functional_inplace(node: fx.Node) -> Callable[[], None] | None:
    """How to switch off `inplace` of a function call such as F.relu(x, inplace=True)."""
    if node.op != "call_function" or node.target in _OPERATORS:
        return None
    if node.kwargs.get("inplace") is True:
        return lambda: node.update_kwarg("inplace", False)
    if getattr(F, getattr(node.target, "__name__", ""), None) is not node.target:
        return None
    try:
        names = list(inspect.signature(node.target).parameters)
    except ValueError:
        return None
    place = names.index("inplace") if "inplace" in names else len(node.args)
    if place < len(node.args) and node.args[place] is True:
        return lambda: node.update_arg(place, False)
    return None


def _plain_name(name: str) -> str | None:
    plain = name[:-1] if name.endswith("_") and not name.endswith("__") else None
    return plain if plain in _ARITHMETIC else None
