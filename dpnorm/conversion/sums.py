"""Norms behind the sums in a network's own forward methods, such as those of residual blocks.

The sums are read off the graphs of torch.fx, and a block that holds one gets a forward that calls a
further layer on it. A BatchNorm is put there, so that it is converted as every other one.
"""

import operator
from collections.abc import Iterator, Mapping

import torch
from torch import fx, nn

from dpnorm.conversion.blocks import install, make_out_of_place
from dpnorm.conversion.recipes.registry import Chosen, Preparation
from dpnorm.conversion.tracing import own_graphs
from dpnorm.conversion.widths import BATCH_NORMS, Width, width
from dpnorm.errors import ConversionError

NAME = "norm_after_sum"
_FUNCTIONS = (operator.add, operator.iadd, torch.add)
_METHODS = ("add", "add_")
_UNTRACED = (
    "torch.fx cannot follow its forward (a branch on the input, an optional argument), so that its "
    "sums are not seen"
)


def norms_after_sums(
    model: nn.Module, norms: Mapping[str, nn.Module], chosen: Chosen
) -> Preparation:
    """Adds a fresh BatchNorm behind every sum of two values that a forward makes of its input.

    Of a chain of sums only the last is followed by one. Blocks without a norm to exchange are left
    alone.

    Args:
        model: the copy; its blocks get forwards of their own.
        norms: the norms to be exchanged, by path.
        chosen: whether a norm at a path is to be added.

    Raises:
        ConversionError: a forward around a norm cannot be followed, or adds what is not known.
    """
    held = {id(layer) for layer in norms.values()}
    added: list[str] = []
    rewritten = []
    for path, block in list(model.named_modules()):
        inside = {id(module) for module in block.modules()}
        torchs = type(block).__module__.startswith("torch.nn.")
        if torchs or id(block) in held or held.isdisjoint(inside):
            continue
        graphs = own_graphs(block)
        if graphs is None:
            raise _refusal(path, block, _UNTRACED)
        changed = [make_out_of_place(graph, dict(block.named_modules())) for graph in graphs]
        sums = [list(_sums(graph)) for graph in graphs]
        if any(sums) and None in changed:
            raise _refusal(path, block, "its forward writes over a value that it may read again")
        new = _add_norms(path, block, graphs, sums, chosen)
        if not new:
            continue
        added += new
        install(block, graphs)
        if any(changed):
            rewritten.append(path)
    none = {} if added else dict.fromkeys(norms, "no sum to normalize in this network")
    notes = none | dict.fromkeys(added, "added behind a sum")
    return Preparation(notes, tuple(added), tuple(rewritten))


def _add_norms(
    path: str,
    block: nn.Module,
    graphs: list[fx.Graph],
    sums: list[list[fx.Node]],
    chosen: Chosen,
) -> list[str]:
    """Puts a norm behind each sum of each graph, the i-th of each being the same; their paths."""
    modules = dict(block.named_modules(remove_duplicate=False))
    widths = [[width(node, modules) for node in found] for found in sums]
    if widths[0] != widths[1]:
        raise _refusal(path, block, "it adds other values in training than in evaluation")
    paths = []
    for i, wide in enumerate(widths[0]):
        if wide is None:
            raise _refusal(path, block, "how many channels its sum has cannot be told")
        name = f"{NAME}_{i}" if i else NAME
        new_path = f"{path}.{name}" if path else name
        norm = _fresh(wide, block)
        if not chosen(new_path, norm):
            continue
        block.add_module(name, norm)
        for graph, found in zip(graphs, sums, strict=True):
            _call_behind(graph, found[i], name)
        paths.append(new_path)
    return paths


def _sums(graph: fx.Graph) -> Iterator[fx.Node]:
    """The last additions of two values that both depend on the block's input."""
    from_input: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not from_input.isdisjoint(node.all_input_nodes):
            from_input.add(node)
    for node in graph.nodes:
        last = not all(_adds(user, from_input) for user in node.users)
        if _adds(node, from_input) and last:
            yield node


def _adds(node: fx.Node, from_input: set[fx.Node]) -> bool:
    function = node.op == "call_function" and node.target in _FUNCTIONS
    method = node.op == "call_method" and node.target in _METHODS
    two = len(node.all_input_nodes) == 2 and from_input.issuperset(node.all_input_nodes)
    return (function or method) and two


def _fresh(wide: Width, block: nn.Module) -> nn.Module:
    norm = BATCH_NORMS[wide.dims](wide.channels).train(block.training)
    like = next(block.parameters(), None)
    return norm if like is None else norm.to(like)


def _call_behind(graph: fx.Graph, node: fx.Node, name: str) -> None:
    with graph.inserting_after(node):
        call = graph.call_module(name, (node,))
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)


def _refusal(path: str, block: nn.Module, why: str) -> ConversionError:
    kind = f"{type(block).__module__}.{type(block).__qualname__}"
    return ConversionError(
        f"{path or 'the model'} ({kind}): {why}, and 'scale' needs a norm behind each sum: convert "
        "to 'group' and add the norms by hand"
    )
