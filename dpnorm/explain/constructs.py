"""Small models of topic `silent-acceptance`: what mixes records under another name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 10
_CHANNELS, _SEED = 16, 0


@dataclass(frozen=True)
class Construct:
    """A layer that is put into a small model.

    Attributes:
        words: what a plot calls it.
        layer: makes it.
    """

    words: str
    layer: Callable[[], nn.Module]


class _Function(nn.Module):
    """A function without parameters as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def _frozen_affine() -> nn.Module:
    layer = nn.BatchNorm2d(_CHANNELS)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    return layer


def _group() -> nn.Module:
    return nn.GroupNorm(4, _CHANNELS)


CONSTRUCTS = {
    "affine_free": Construct(
        "BatchNorm2d, affine=False", lambda: nn.BatchNorm2d(_CHANNELS, affine=False)
    ),
    "frozen_affine": Construct("BatchNorm2d, scale and shift frozen", _frozen_affine),
    "functional": Construct(
        "F.batch_norm in a forward",
        lambda: _Function(lambda x: nn.functional.batch_norm(x, None, None, training=True)),
    ),
    "by_hand": Construct("x - x.mean(0) in a forward", lambda: _Function(lambda x: x - x.mean(0))),
    "instance": Construct(
        "InstanceNorm2d that tracks statistics",
        lambda: nn.InstanceNorm2d(_CHANNELS, track_running_stats=True),
    ),
    "loss": Construct("cross entropy, weighted by class", _group),
    "control": Construct("GroupNorm", _group),
}


def small_model(layer: nn.Module) -> nn.Module:
    """A convolution, the layer, and a linear layer on averages; the same weights each time."""
    torch.manual_seed(_SEED)
    return nn.Sequential(
        nn.Conv2d(1, _CHANNELS, 3, padding=1),
        layer,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * _CHANNELS, CLASSES),
    )
