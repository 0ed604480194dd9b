"""What a zoo holds: models with their inputs, and how they are entered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model, its inputs, and with a criterion also targets."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    criterion: Any = None
    targets: Callable[[], Any] | None = None
    reduction: str = "mean"
    options: dict = field(default_factory=dict)


def flat(n: int = 6, features: int = 8) -> Tensor:
    return torch.randn(n, features)


def image(n: int = 6, channels: int = 4, size: int = 6) -> Tensor:
    return torch.randn(n, channels, size, size)


def sequence(n: int = 6, steps: int = 5, features: int = 8) -> Tensor:
    return torch.randn(n, steps, features)


class Wrapped(nn.Module):
    """A linear layer, the function, a linear layer: what is tested stands between parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(features, features), nn.Linear(features, features)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


class Images(nn.Module):
    """A convolution, the layer, a pooled classifier."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer, self.head = nn.Conv2d(4, 4, 3, padding=1), layer, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.conv(x)).mean((2, 3)))


def four() -> Tensor:
    return flat(4)


def summed(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="sum")


def averaged(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Zoo(dict[str, Case]):
    """Cases by name, with decorators that enter them."""

    def function(self, name: str, inputs: Callable[[], Any] = flat) -> Callable:
        """Enters a function of one tensor, between two linear layers."""

        def add(function: Callable[[Tensor], Tensor]) -> Callable:
            self[name] = Case(lambda: Wrapped(function), inputs)
            return function

        return add

    def module(self, name: str, inputs: Callable[[], Any] = flat, **options: Any) -> Callable:
        """Enters a function that builds a model."""

        def add(build: Callable[[], nn.Module]) -> Callable:
            self[name] = Case(build, inputs, **options)
            return build

        return add
