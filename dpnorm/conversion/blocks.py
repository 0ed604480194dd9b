"""Forward methods with in-place operations, such as `out += identity`, rewritten out of place.

Opacus's full backward hooks turn the outputs of modules into views, which autograd does not let
be modified in place. A block whose own forward torch.fx can follow gets a forward that computes
the same out of place. Its class, parameters, state-dict keys, hooks and attributes stay.
"""

import functools
import inspect
import linecache
import types
from typing import Any

from torch import fx, nn

from dpnorm.conversion.aliasing import Aliases, changes_unclearly, out_of_place
from dpnorm.conversion.tracing import own_graphs

_SIGNS = ("+=", "-=", "*=", "/=", "_(", "inplace", "True)")


def rewrite_blocks(model: nn.Module) -> tuple[str, ...]:
    """Rewrites what can be followed, in place; returns the paths of the rewritten blocks.

    A block is left as it is where its control flow depends on its input, or where another value
    that shares memory with the changed one is read later.
    """
    return tuple(path for path, module in model.named_modules() if _rewrite(module))


def _rewrite(block: nn.Module) -> bool:
    if not _may_work_in_place(type(block)):  # type: ignore[arg-type]
        return False
    graphs = own_graphs(block)
    if graphs is None:
        return False
    changed = [make_out_of_place(graph, dict(block.named_modules())) for graph in graphs]
    if None in changed or not any(changed):
        return False
    install(block, graphs)
    return True


def install(block: nn.Module, graphs: list[fx.Graph]) -> None:
    """Gives a block a forward that runs its graphs of training and of evaluation."""
    forward = _forward(type(block), *(_function(graph, type(block)) for graph in graphs))
    block.forward = types.MethodType(forward, block)


@functools.cache
def _may_work_in_place(kind: type) -> bool:
    """A quick look at the source: most blocks need no tracing."""
    if kind.__module__.startswith(("torch.nn.", "dpnorm.")):
        return False
    try:
        sources = [inspect.getsource(c) for c in kind.__mro__ if c not in nn.Module.__mro__]
    except (OSError, TypeError):
        return True
    return any(sign in source for source in sources for sign in _SIGNS)


def make_out_of_place(graph: fx.Graph, modules: dict[str, nn.Module]) -> bool | None:
    """Rewrites the in-place operations of a block's graph.

    Returns:
        Whether something was rewritten; None where it could change what the block computes.
    """
    aliases = Aliases(graph, modules)
    changed = False
    for node in list(graph.nodes):
        if changes_unclearly(node):
            return None
        rewrite = out_of_place(node)
        if rewrite is None:
            continue
        value = node.args[0] if node.args else None
        if not isinstance(value, fx.Node):
            return None
        from_outside = any(m.op in ("placeholder", "get_attr") for m in aliases.group(value))
        if from_outside or any(m is not value for m in aliases.read_after(value, node)):
            return None
        later = {u for u in value.users if aliases.order[u] > aliases.order[node]}
        value.replace_all_uses_with(node, delete_user_cb=later.__contains__)
        rewrite()
        changed = True
    return changed


def _function(graph: fx.Graph, kind: type[nn.Module]) -> Any:
    code = graph.python_code("self")
    name = f"<dpnorm: {kind.__qualname__}.forward, out of place, {hash(code.src)}>"
    linecache.cache[name] = (len(code.src), None, code.src.splitlines(keepends=True), name)
    scope = dict(code.globals)
    exec(compile(code.src, name, "exec"), scope)
    return scope["forward"]


def _forward(kind: type[nn.Module], training: Any, evaluation: Any) -> Any:
    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (training if self.training else evaluation)(self, *args, **kwargs)

    return forward
