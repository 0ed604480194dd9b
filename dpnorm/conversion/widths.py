"""How many channels a value of a traced forward has, read off the layers that it comes from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import fx, nn

from dpnorm.conversion.dimensions import POINTWISE
from dpnorm.conversion.kinds import is_batch_norm, num_channels
from dpnorm.conversion.preceding import LINEAR_LAYERS, channels_out
from dpnorm.conversion.source import known_dimensions
from dpnorm.conversion.tracing import own_graphs

BATCH_NORMS: dict[int, type[nn.Module]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_KEEPING = {
    "add", "sub", "mul", "truediv", "div", "neg", "relu", "relu_", "relu6", "leaky_relu", "elu",
    "gelu", "silu", "mish", "hardswish", "sigmoid", "tanh", "dropout", "dropout2d",
    "stochastic_depth", "drop_path", "contiguous",
}  # fmt: skip
_KEEPING_LAYERS = (*POINTWISE, nn.modules.dropout._DropoutNd, nn.modules.pooling._MaxPoolNd)


class Width(NamedTuple):
    """The channels of a value, and the number of dimensions behind them."""

    channels: int
    dims: int


def width(node: fx.Node, modules: Mapping[str, nn.Module]) -> Width | None:
    """The width of a value, where all layers that it comes from agree; a width of 1 gives way.

    Args:
        node: stands in a graph of a forward, as `own_graphs` gives it.
        modules: what the graph calls, by path.
    """
    found = _layers_behind(node, modules)
    channels = {wide.channels for wide in found}
    if len(channels) > 1:
        channels -= {1}  # a map that is the same for all channels
    return Width(channels.pop(), max(w.dims for w in found)) if len(channels) == 1 else None


def _layers_behind(node: fx.Node, modules: Mapping[str, nn.Module]) -> set[Width]:
    found: set[Width] = set()
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module":
            module = modules[str(node.target)]
            given = _given(module)
            found |= given
            keeps = not given and _keeps(module)
        else:
            name = getattr(node.target, "__name__", str(node.target))
            keeps = node.op in ("call_function", "call_method") and name in _KEEPING
        if keeps:
            waiting += node.all_input_nodes
    return found


def _given(module: nn.Module) -> set[Width]:
    """The width of what a module gives; empty where it is that of what it takes, or not known."""
    if is_batch_norm(module):
        return {Width(num_channels(module), known_dimensions(module) or 0)}
    if isinstance(module, LINEAR_LAYERS):
        weight: Any = module.weight
        return {Width(channels_out(module), weight.dim() - 2)}  # 0 behind an nn.Linear
    graphs = own_graphs(module) if any(True for _ in module.children()) else None
    if graphs is None:
        return set()
    result = next(node for node in graphs[0].nodes if node.op == "output").args[0]
    inner = dict(module.named_modules(remove_duplicate=False))
    return _layers_behind(result, inner) if isinstance(result, fx.Node) else set()


def _keeps(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return all(_keeps(child) for child in module)
    name = type(module).__name__
    return isinstance(module, _KEEPING_LAYERS) or "Drop" in name or name == "StochasticDepth"
