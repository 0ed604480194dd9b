"""What a layer owes to be run lean, and which layers do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dpnorm.gradients.factors import Samples
from dpnorm.gradients.memory import Workspace

Group = Callable[[Tensor], Tensor]  # (rows, ...) -> (records, rows of each record, ...)
Parameters = Sequence[Tensor | None]
Forward = tuple[Tensor, tuple[Tensor, ...]]
Gradients = tuple[Tensor | None, list[Samples | None]]  # of the input, and of each parameter

_DTYPES = (torch.float32, torch.float64)


class LeanLayer(ABC):
    """The two passes of a module, written out.

    Attributes:
        module: that it stands for.
        memory: where gradients of records are written.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.memory = Workspace()

    @property
    def parameters(self) -> tuple[nn.Parameter | None, ...]:
        """Of the module, as they are now; None for one that it could have and has not."""
        return self.module.weight, self.module.bias

    def serves(self, *args: Any) -> bool:
        """Whether arguments are such as can be run: of single or double precision throughout."""
        x = args[0] if args else None
        return (
            isinstance(x, Tensor)
            and self.takes_constants(x, args[1:])
            and x.dtype in _DTYPES
            and all(p is None or p.dtype == x.dtype for p in self.parameters)
            and not torch.is_autocast_enabled(x.device.type)
            and x.dim() >= 2
            and x.shape[0] > 0
            and self.takes(x)
        )

    @abstractmethod
    def takes(self, x: Tensor) -> bool:
        """Whether the input has the dimensions of a batch."""

    def takes_constants(self, x: Tensor, constants: tuple[Any, ...]) -> bool:
        """Whether the arguments behind the input are tensors that no gradient goes to."""
        return not constants

    def prepared(self, x: Tensor) -> Tensor:
        """What `forward` is given in the place of the input, by operators of autograd."""
        return x

    @abstractmethod
    def forward(self, x: Tensor, parameters: Parameters, constants: Sequence[Tensor]) -> Forward:
        """The output, and what the backward pass needs beside input and parameters."""

    @abstractmethod
    def backward(
        self,
        slope: Tensor,
        x: Tensor,
        parameters: Parameters,
        kept: Sequence[Tensor],
        *,
        wanted: Sequence[bool],
        group: Group,
        scale: float,
    ) -> Gradients:
        """The gradient of the input, and the records' gradients of each parameter.

        Args:
            slope: (rows, ...), of the loss with respect to the output.
            x: the input.
            parameters: as in `forward`.
            kept: of `forward`.
            wanted: whether that of the input, and of each parameter, is needed.
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


def summed(rows: Tensor, group: Group) -> Tensor:
    """(rows, ...) added up within each record: (records, ...)."""
    found = group(rows)
    return rows if found.shape[1] == 1 else found.sum(1)


def lean_layer(module: nn.Module, memory: Workspace | None = None) -> LeanLayer | None:
    """The lean layer of a module; None where it has to run as it is.

    Args:
        module: of a model.
        memory: that the layers of the model share.
    """
    build = LEAN_LAYERS.get(type(module))
    if build is None or "forward" in vars(module):
        return None
    layer = build(module)
    # what is computed from parameters before each pass is none itself
    if layer is None or not all(p is None or isinstance(p, nn.Parameter) for p in layer.parameters):
        return None
    if memory is not None:
        layer.memory = memory
    return layer
