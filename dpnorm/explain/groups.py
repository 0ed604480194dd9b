"""Topic `groups`: how many groups a GroupNorm gets, and what its scale and shift start from."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dpnorm.conversion import convert
from dpnorm.data import load
from dpnorm.explain.explanation import Claim, Measured, Setting
from dpnorm.training import TrainConfig, accuracy, train
from dpnorm.training.networks import build_network

Init = Literal["match", "copy", "reset"]

MODEL, EPOCHS, FEATURES, WIDE, SEED = "resnet8", 8, 32, 16, 0


def measure(init: Init = "match") -> Measured:
    """Trains a network with BatchNorm, and converts it in several ways.

    Args:
        init: what the scale and shift of the better conversion start from.
    """
    data = load("digits")
    torch.manual_seed(SEED)
    network = build_network(MODEL, "batch", data)
    trained = train(network, data, TrainConfig(epochs=EPOCHS, seed=SEED)).model

    def kept(groups: int | Callable[[int], int], init: Init) -> float:
        model = convert(trained, to="group", groups=groups, init=init).model
        return accuracy(model, data.test)

    numbers: dict[str, float] = {"accuracy_batch": accuracy(trained, data.test)}
    for name, groups in (("narrow", _as_opacus), ("wide", _wide), ("whole", 1)):
        numbers[f"reset_{name}"] = kept(groups, "reset")
        numbers[f"match_{name}"] = kept(groups, init)
    records = torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(SEED))
    numbers |= {
        "values_single": _values(nn.GroupNorm(FEATURES, FEATURES), records),
        "values_pairs": _values(nn.GroupNorm(FEATURES // 2, FEATURES), records),
        "values_whole": _values(nn.GroupNorm(1, FEATURES), records),
    }
    settings: dict[str, Setting] = {
        "model": MODEL, "epochs": EPOCHS, "features": FEATURES, "wide": WIDE, "init": init,
        "records": len(records),
    }  # fmt: skip
    return Measured(numbers, settings, _claims(numbers))


def _claims(n: dict[str, float]) -> tuple[Claim, ...]:
    wide = min(n["match_wide"], n["match_whole"])
    return (
        Claim(
            "with matched moments and wide groups the network keeps nearly all of its accuracy",
            wide >= n["accuracy_batch"] - 0.1,
        ),
        Claim(
            "reset, it loses more, whatever the groups",
            max(n[f"reset_{name}"] for name in ("narrow", "wide", "whole")) < wide - 0.1,
        ),
        Claim(
            "matched, wide groups keep more than groups of one or two channels",
            wide > n["match_narrow"],
        ),
        Claim(
            "on features, groups of one leave one value of every record, groups of two leave two",
            (n["values_single"], n["values_pairs"]) == (1, 2),
        ),
        Claim(
            "one group over all features leaves them as different as they were",
            n["values_whole"] > 2,
        ),
    )


def _as_opacus(channels: int) -> int:
    """The groups that Opacus's ModuleValidator.fix gives to so many channels."""
    return math.gcd(32, channels)


def _wide(channels: int) -> int:
    return max(1, channels // WIDE)


def _values(layer: nn.GroupNorm, records: Tensor) -> int:
    """How many whole numbers, rounded, the layer makes of a feature of all records: the median."""
    with torch.no_grad():
        output = layer(records).round() + 0.0  # not -0.0
    return int(torch.tensor([len(column.unique()) for column in output.T]).median())
