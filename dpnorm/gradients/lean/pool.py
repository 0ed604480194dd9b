"""Which pooling runs otherwise than as it is, in a step of mode "lean"."""

from typing import Any, Protocol

from torch import Tensor, nn

from dpnorm.gradients.lean.average_pool import average_pool
from dpnorm.gradients.lean.max_pool import max_pool


class LeanPool(Protocol):
    """A faster way to do what a pooling does, without parameters."""

    @property
    def module(self) -> nn.Module:
        """That it stands for."""

    def serves(self, *args: Any) -> bool:
        """Whether arguments are such as it takes."""

    def __call__(self, x: Tensor) -> Tensor:
        """The output, by operators of autograd."""


def lean_pool(module: nn.Module) -> LeanPool | None:
    """The faster way of a module; None where it is to run as it is."""
    return max_pool(module) or average_pool(module)
