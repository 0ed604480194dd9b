"""Where code of the user's may mix gradients between a parameter and what its module gave.

Torch's own backward operators mix no records that the forward pass has kept apart. A custom
autograd function or a hook may, and where the gradient of a module's output is not read behind it,
nobody would see: a parameter of the model itself that is used first of all, a parameter that is
used outside of its module, an output that is handed over in another way than by returning it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

# of a parameter they make the parameter, laid otherwise
_SHAPES = ["T", "Transpose", "Permute", "View", "UnsafeView", "Unsqueeze", "Squeeze", "ToCopy"]
_RESHAPING = {f"{name}Backward{number}" for name in _SHAPES for number in range(3)}
Heard = Sequence[tuple[GradientEdge, nn.Module]]  # an output whose gradient is read, and whose


def is_foreign(node: Any) -> bool:
    """Whether a node of autograd's graph runs a custom autograd function."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def has_hooks(model: nn.Module) -> bool:
    """Whether modules or parameters of the model have hooks of their gradients."""
    return any(m._backward_hooks or m._backward_pre_hooks for m in model.modules()) or any(
        p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters()
    )


def exposed_uses(
    model: nn.Module, outputs: Sequence[Tensor], heard: Heard, *, hooked: bool
) -> list[tuple[str, Any]]:
    """Nodes that take a parameter, and whose gradient came through foreign code unread.

    Args:
        model: whose trainable parameters are looked for.
        outputs: of the model.
        heard: where gradients are read. A module's own parameters, not those of modules within
            it, are covered from there on, up to the next custom function.
        hooked: whether tensors have hooks, which may stand anywhere: then no module but torch's
            covers anything.

    Returns:
        (path of the parameter, node).
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    bit = {p: 1 << place for place, p in enumerate(names)}
    every = (1 << len(names)) - 1
    covers: dict[tuple[Any, int], int] = {}  # by node and the place of its output
    for end, module in heard:
        if not hooked or type(module).__module__.startswith("torch.nn."):
            edge = end.node, end.output_nr
            for p in module.parameters(recurse=False):
                covers[edge] = covers.get(edge, 0) | bit.get(p, 0)
    # by node: the parameters that it would expose, on some way from the outputs
    exposed: dict[Any, int] = {}
    for output in outputs:
        if output.grad_fn is not None:
            edge = (output.grad_fn, output.output_nr)
            start = every if hooked else 0
            exposed[output.grad_fn] = exposed.get(output.grad_fn, 0) | start & ~covers.get(edge, 0)
    found = []
    for node in _in_order(list(exposed)):
        own = exposed.get(node, 0)
        for edge in node.next_functions:
            following = edge[0]
            if following is None:
                continue
            parameter = _parameter(following)
            if parameter is not None:
                if own & bit.get(parameter, 0):
                    found.append((names[parameter], node))
                continue
            passed = (every if is_foreign(node) else own) & ~covers.get(edge, 0)
            exposed[following] = exposed.get(following, 0) | passed
    return found


def _parameter(node: Any) -> Any:
    """That whose gradient a node hands over, in another shape at most; else None."""
    while node.name() in _RESHAPING and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def _in_order(starts: Iterable[Any]) -> Iterator[Any]:
    """Every node that can be reached, each behind all that lead to it."""
    waiting, seen = list(starts), set(starts)
    leading: dict[Any, int] = {}
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is None:
                continue
            leading[following] = leading.get(following, 0) + 1
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    ready = [node for node in seen if node not in leading]
    while ready:
        node = ready.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None:
                leading[following] -= 1
                if not leading[following]:
                    ready.append(following)
