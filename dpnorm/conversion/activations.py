"""Taking out the activations behind norms, for layers that are norm and activation in one."""

import itertools
from collections.abc import Mapping

from torch import fx, nn

from dpnorm.conversion.blocks import install, make_out_of_place
from dpnorm.conversion.recipes.registry import Chosen, Preparation
from dpnorm.conversion.tracing import own_graphs

_LAYERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
)  # fmt: skip
_FUNCTIONS = {"relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish"}


def without_activations(
    model: nn.Module, norms: Mapping[str, nn.Module], chosen: Chosen
) -> Preparation:
    """Takes out each activation that is all that reads a norm's output, as far as this is shown.

    In a Sequential it becomes an Identity. In a forward that torch.fx can follow the call is left
    out, and the activation itself stays for other calls. Everywhere else it stays.

    Args:
        model: the copy.
        norms: the norms to be exchanged, by path.
        chosen: not needed, since no norm is added.
    """
    paths = {id(layer): path for path, layer in norms.items()}
    notes = dict.fromkeys(norms, "what follows it stays")
    rewritten = []
    for path, block in model.named_modules():
        if paths.keys().isdisjoint(id(module) for module in block.modules()):
            continue
        if isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward:
            removed = _from_sequential(block, paths)
        else:
            removed, changed = _from_forward(block, paths)
            if removed and changed:
                rewritten.append(path)
        notes |= {norm: f"the {name} behind it taken out" for norm, name in removed.items()}
    return Preparation(notes, rewritten=tuple(rewritten))


def _from_sequential(block: nn.Sequential, paths: Mapping[int, str]) -> dict[str, str]:
    """The activations taken out, by the path of the norm before each."""
    removed = {}
    children = list(block._modules.items())
    for (_, norm), (name, layer) in itertools.pairwise(children):
        if id(norm) in paths and _is_plain(layer):
            block._modules[name] = nn.Identity().train(layer.training)
            removed[paths[id(norm)]] = type(layer).__name__
    return removed


def _from_forward(block: nn.Module, paths: Mapping[int, str]) -> tuple[dict[str, str], bool]:
    """The same for a forward, and whether it worked in place; nothing where that is not shown."""
    modules = dict(block.named_modules(remove_duplicate=False))
    graphs = own_graphs(block)
    if graphs is None:
        return {}, False
    removed = [_from_graph(graph, modules, paths) for graph in graphs]
    changed = [make_out_of_place(graph, modules) for graph in graphs]
    if not removed[0] or removed[0] != removed[1] or None in changed:
        return {}, False
    install(block, graphs)
    return removed[0], any(changed)


def _from_graph(
    graph: fx.Graph, modules: Mapping[str, nn.Module], paths: Mapping[int, str]
) -> dict[str, str]:
    removed = {}
    for node in list(graph.nodes):
        norm = modules[str(node.target)] if node.op == "call_module" else None
        if id(norm) not in paths or len(node.users) != 1:
            continue
        user = next(iter(node.users))
        name = _activation(user, modules)
        if name is not None and user.all_input_nodes == [node]:
            user.replace_all_uses_with(node)
            graph.erase_node(user)
            removed[paths[id(norm)]] = name
    return removed


def _activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    if node.op == "call_module":
        layer = modules[str(node.target)]
        return type(layer).__name__ if _is_plain(layer) else None
    name = getattr(node.target, "__name__", str(node.target))
    called = node.op in ("call_function", "call_method")
    return name.rstrip("_") if called and name in _FUNCTIONS else None


def _is_plain(layer: nn.Module | None) -> bool:
    hooked = layer is not None and (layer._forward_hooks or layer._forward_pre_hooks)
    return isinstance(layer, _LAYERS) and not hooked
