"""Which forward methods torch.fx can follow without a silent mistake.

A symbolic value is not a tensor: `x is None`, `isinstance(x, Tensor)` or a Python coin decide a
branch while tracing, and fx would take that branch for good without a word. It also forgets
context managers and runs assignments to the module. Classes that do any of this are not traced.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

_ASKS = {"isinstance", "issubclass", "type", "hasattr", "getattr", "id", "callable", "vars"}
_STATEFUL = {
    "random", "item", "tolist", "is_grad_enabled", "requires_grad", "setattr", "data_ptr",
    "set_grad_enabled", "no_grad", "enable_grad", "detach_", "requires_grad_", "time",
}  # fmt: skip


def traceable(kind: type[nn.Module]) -> bool:
    """Whether the forward method of a class, and its own methods that it calls, can be traced."""
    return _traceable(kind)  # type: ignore[arg-type]  # nn.Module's __hash__ confuses mypy


@functools.cache
def _traceable(kind: type) -> bool:
    if kind is nn.Sequential or issubclass(kind, fx.GraphModule):
        return True
    seen: set[str] = set()
    waiting = ["forward"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        tree = _parsed(getattr(kind, name, None))
        if tree is None or not _plain(tree):
            return False
        waiting += [called for called in _own_calls(tree) if inspect.isfunction(_of(kind, called))]
    return True


def _of(kind: type, name: str) -> Any:
    found = inspect.getattr_static(kind, name, None)
    return None if name in vars(nn.Module) else found


def _parsed(function: Any) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _own_calls(tree: ast.AST) -> Iterator[str]:
    """Names of the attributes of `self` that the code reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _names(node) == {"self"}:
            yield node.attr


def _plain(function: ast.FunctionDef) -> bool:
    if not all(ast.unparse(d).startswith("torch.jit.") for d in function.decorator_list):
        return False
    return not any(_decides_silently(node) for node in ast.walk(function))


def _decides_silently(node: ast.AST) -> bool:
    if isinstance(node, (ast.With, ast.Try, ast.Global, ast.Nonlocal, ast.Delete)):
        return True
    if isinstance(node, ast.Compare):
        identity = any(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops)
        return identity and not _names(node.left) <= {"self"}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ASKS:
        return not (node.args and _names(node.args[0]) <= {"self"})
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(part, ast.Attribute) for t in targets for part in ast.walk(t))
    if isinstance(node, (ast.Name, ast.Attribute)):
        word = node.id if isinstance(node, ast.Name) else node.attr
        return word in _STATEFUL or word.startswith(("rand", "bernoulli"))
    return False


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
