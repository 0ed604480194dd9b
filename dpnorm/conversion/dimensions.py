"""How many dimensions stand behind the channel of what each norm sees."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from dpnorm.conversion.modes import evaluating
from dpnorm.conversion.preceding import LINEAR_LAYERS
from dpnorm.conversion.source import known_dimensions
from dpnorm.detection.inputs import Inputs, call

POINTWISE = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish, nn.Hardtanh,
)  # fmt: skip


def unknown(norms: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """The norms whose class takes inputs of more than one rank."""
    return [(path, layer) for path, layer in norms if known_dimensions(layer) is None]


def dimensions_by_order(
    model: nn.Module, norms: list[tuple[str, nn.Module]], graphs: list[fx.Graph] | None
) -> dict[str, int]:
    """Read off the convolution or linear layer that feeds each norm, through activations.

    Behind a linear layer of the norm's own width records are taken to be flat.
    """
    modules = dict(model.named_modules())
    widths = {path: getattr(layer, "num_features", None) for path, layer in norms}
    found: dict[str, set[int | None]] = {}
    for graph in graphs or ():
        for node in graph.nodes:
            if node.op == "call_module" and node.target in widths:
                path = str(node.target)
                found.setdefault(path, set()).add(_before(node, modules, widths[path]))
    return {p: d for p, ds in found.items() if len(ds) == 1 and (d := next(iter(ds))) is not None}


def dimensions_by_run(
    model: nn.Module, norms: list[tuple[str, nn.Module]], inputs: Inputs
) -> dict[str, int]:
    """Observed in one forward pass in evaluation mode."""
    found: dict[str, int] = {}

    def note(path: str, given: Any) -> None:
        if given and isinstance(given[0], Tensor):
            found[path] = given[0].dim() - 2

    handles = [
        layer.register_forward_pre_hook(lambda module, given, path=path: note(path, given))
        for path, layer in norms
    ]
    try:
        with torch.no_grad(), evaluating(model):
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _before(node: fx.Node, modules: dict[str, nn.Module], width: int | None) -> int | None:
    while node.args and isinstance(node.args[0], fx.Node) and node.args[0].op == "call_module":
        node = node.args[0]
        layer: Any = modules.get(str(node.target))
        if isinstance(layer, nn.Linear):
            return 0 if layer.out_features == width else 1
        if isinstance(layer, LINEAR_LAYERS):
            return int(layer.weight.dim()) - 2
        if not isinstance(layer, POINTWISE):
            return None
    return None
