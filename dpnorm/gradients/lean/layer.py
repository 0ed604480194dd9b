"""What a layer owes to be run lean, and which layers do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dpnorm.gradients.outer import Samples

Group = Callable[[Tensor], Tensor]  # (rows, ...) -> (records, rows of each record, ...)
Gradients = tuple[Tensor | None, list[Samples | None]]  # of the input, and of each parameter

_DTYPES = (torch.float32, torch.float64)


class LeanLayer(ABC):
    """The two passes of a module with a weight and a bias, each of which may be None."""

    def __init__(self, module: Any) -> None:
        self.module = module

    @property
    def parameters(self) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        """Weight and bias of the module, as they are now."""
        return self.module.weight, self.module.bias

    def serves(self, x: Any) -> bool:
        """Whether an input is one that can be run so: of single or double precision throughout."""
        return (
            isinstance(x, Tensor)
            and x.dtype in _DTYPES
            and all(p is None or p.dtype == x.dtype for p in self.parameters)
            and not torch.is_autocast_enabled(x.device.type)
            and x.dim() >= 2
            and len(x) > 0
            and self.takes(x)
        )

    @abstractmethod
    def takes(self, x: Tensor) -> bool:
        """Whether the input has the dimensions of a batch."""

    def prepared(self, x: Tensor) -> Tensor:
        """What `forward` is given in the place of the input, by operators of autograd."""
        return x

    @abstractmethod
    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and what the backward pass needs beside input and parameters."""

    @abstractmethod
    def backward(
        self,
        slope: Tensor,
        x: Tensor,
        weight: Tensor | None,
        kept: Sequence[Tensor],
        *,
        wanted: Sequence[bool],
        group: Group,
        scale: float,
    ) -> Gradients:
        """The gradient of the input, and the records' gradients of weight and bias.

        Args:
            slope: (rows, ...), of the loss with respect to the output.
            x: the input.
            weight: as in `forward`.
            kept: of `forward`.
            wanted: whether that of the input, of the weight and of the bias is needed.
            group: puts the rows of each record together.
            scale: by which the records' gradients are multiplied, and the input's is not.

        Returns:
            None stands for what is not wanted.
        """


Build = Callable[[Any], LeanLayer | None]
LEAN_LAYERS: dict[type[nn.Module], Build] = {}
_Build = TypeVar("_Build", bound=Build)


def lean(*types: type[nn.Module]) -> Callable[[_Build], _Build]:
    """Registers what builds the lean layer of modules of exactly these types."""

    def register(build: _Build) -> _Build:
        for type_ in types:
            LEAN_LAYERS[type_] = build
        return build

    return register


def lean_layer(module: nn.Module) -> LeanLayer | None:
    """The lean layer of a module; None where it has to run as it is."""
    build = LEAN_LAYERS.get(type(module))
    if build is None or "forward" in vars(module):
        return None
    layer = build(module)
    # what is computed from parameters before each pass is none itself
    if layer is None or not all(p is None or isinstance(p, nn.Parameter) for p in layer.parameters):
        return None
    return layer
