"""Activations that write over their input, set to leave it alone."""

from collections.abc import Iterable
from typing import Any

from torch import fx, nn

from dpnorm.conversion.aliasing import Aliases


def inplace_activations(model: nn.Module) -> list[tuple[str, Any]]:
    """The modules with a flag `inplace` that is set, by path."""
    return [(p, m) for p, m in model.named_modules() if getattr(m, "inplace", False) is True]


def relied_upon(model: nn.Module, graphs: Iterable[fx.Graph]) -> set[str]:
    """Paths of in-place activations whose input is read again later, and so reads the output.

    Out of place such a module would change what the model computes.
    """
    modules = dict(model.named_modules())
    found = set()
    for graph in graphs:
        aliases = Aliases(graph, modules)
        for node in graph.nodes:
            module = modules.get(str(node.target)) if node.op == "call_module" else None
            given = node.args[0] if node.args else None
            inplace = getattr(module, "inplace", False) is True
            if inplace and isinstance(given, fx.Node) and aliases.read_after(given, node):
                found.add(str(node.target))
    return found
