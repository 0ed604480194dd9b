"""The convolution or linear layer whose output a BatchNorm takes, where that can be shown."""

from collections import Counter
from typing import Any

from torch import fx, nn

LINEAR_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def preceding_layers(
    model: nn.Module, norms: list[str], graphs: list[fx.Graph] | None
) -> dict[str, str]:
    """The path of the linear layer before each norm, for the norms where the graphs prove it.

    Proven means: in every mode in which either runs, the norm runs once, on the output of that
    layer, which runs once and goes nowhere else; the layer stands at one path, owns its weights
    alone, is of torch's own type, and no hook stands between the two.

    Args:
        model: the model that was traced.
        norms: paths of the norms.
        graphs: its graphs in each mode, or None where it could not be traced.
    """
    if graphs is None:
        return {}
    modules = dict(model.named_modules())
    places = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    before = {path: {_input_of(graph, path) for graph in graphs} - {None} for path in norms}
    found = {}
    for path, layers in before.items():
        if len(layers) != 1 or not isinstance(layer_path := layers.pop(), str):
            continue
        norm, layer = modules[path], modules.get(layer_path)
        if (
            layer is not None
            and type(layer) in LINEAR_LAYERS
            and channels_out(layer) == getattr(norm, "num_features", channels_out(layer))
            and places[id(layer)] == places[id(norm)] == 1
            and all(owners[id(p)] == 1 for p in layer.parameters())
            and all(_together(graph, layer_path, path) for graph in graphs)
            and not (layer._forward_hooks or layer._forward_pre_hooks or norm._forward_pre_hooks)
        ):
            found[path] = layer_path
    return found


def channels_out(layer: Any) -> int:
    """The channels of what a linear layer gives."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _calls(graph: fx.Graph, path: str) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "call_module" and n.target == path]


def _input_of(graph: fx.Graph, path: str) -> str | bool | None:
    """The layer whose output the norm takes; None where it does not run, False where unclear."""
    calls = _calls(graph, path)
    if not calls:
        return None
    given = calls[0].args[0] if len(calls) == 1 and calls[0].args else None
    clear = isinstance(given, fx.Node) and given.op == "call_module"
    return str(given.target) if clear and isinstance(given, fx.Node) else False


def _together(graph: fx.Graph, layer: str, norm: str) -> bool:
    """Whether both run once, one behind the other and into nothing else, or neither runs."""
    if any(n.op == "get_attr" and str(n.target).startswith(layer + ".") for n in graph.nodes):
        return False
    layers, norms = _calls(graph, layer), _calls(graph, norm)
    if not layers and not norms:
        return True
    return len(layers) == 1 and len(norms) == 1 and list(layers[0].users) == norms
