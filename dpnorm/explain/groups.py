"""Topic `groups`: how many groups a GroupNorm gets, and what its scale and shift start from."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from dpnorm.conversion import convert
from dpnorm.data import load
from dpnorm.explain.drawing import grouped_bars
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.figures import Look, legend_below, looks, new_figure
from dpnorm.training import TrainConfig, accuracy, train
from dpnorm.training.networks import build_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    left = {
        name: _left(nn.GroupNorm(groups, FEATURES), records)
        for name, groups in (("single", FEATURES), ("pairs", FEATURES // 2), ("whole", 1))
    }
    numbers |= {f"values_{name}": _values(output) for name, output in left.items()}
    settings: dict[str, Setting] = {
        "model": MODEL, "epochs": EPOCHS, "features": FEATURES, "wide": WIDE, "init": init,
        "records": len(records),
    }  # fmt: skip
    return Measured(numbers, settings, _claims(numbers), _pictures(numbers, init, records, left))


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


def _left(layer: nn.GroupNorm, records: Tensor) -> Tensor:
    """(records, features): what the layer makes of them."""
    with torch.no_grad():
        return layer(records)


def _values(output: Tensor) -> int:
    """How many whole numbers, rounded, a feature takes among all records: the median."""
    whole = output.round() + 0.0  # not -0.0
    return int(torch.tensor([len(column.unique()) for column in whole.T]).median())


def _pictures(
    n: dict[str, float], init: Init, records: Tensor, left: dict[str, Tensor]
) -> tuple[Picture, ...]:
    return (
        Picture(
            "accuracy",
            "Test accuracy with BatchNorm and after its conversion to GroupNorm, with groups as "
            f"Opacus, groups of {WIDE} or one group, its scale and shift {init} or reset.",
            functools.partial(_accuracies, n, init),
        ),
        Picture(
            "features",
            f"One feature of {len(records)} random records before and after a GroupNorm with "
            "groups of one, groups of two or one group for all: the nearer to a diagonal, the more "
            "is left of it.",
            functools.partial(
                _features, records[:, 0], {name: output[:, 0] for name, output in left.items()}
            ),
        ),
    )


def _accuracies(n: dict[str, float], init: Init) -> "Figure":
    figure, axes = new_figure(6.0, 4.2)
    names = ("BatchNorm,\nas trained", "GroupNorm,\nas Opacus", f"GroupNorm,\ngroups of {WIDE}",
             "GroupNorm,\none group")  # fmt: skip
    batch, reset, other = looks(["batch", "reset", "other"])
    series: dict[str, tuple[Look, list[float | None]]] = {
        "BatchNorm": (batch, [100 * n["accuracy_batch"], None, None, None])
    }
    for start, word, one in (("reset", "reset", reset), (init, "match", other)):
        kept = [100 * n[f"{word}_{groups}"] for groups in ("narrow", "wide", "whole")]
        series[f"scale and shift: {start}"] = one, [None, *kept]
    grouped_bars(axes, names, series)
    axes.set_ylim(0, 108)
    axes.set_ylabel("accuracy on test records (%)")
    axes.set_title(f"{MODEL}, converted and not trained further")
    legend_below(figure, axes)
    return figure


def _features(before: Tensor, after: dict[str, Tensor]) -> "Figure":
    figure, axes = new_figure()
    names = {"single": "groups of one", "pairs": "groups of two", "whole": "one group for all"}
    for (groups, name), one in zip(names.items(), looks([*names]), strict=True):
        axes.plot(before, after[groups], one.marker, color=one.light, label=name, alpha=0.8)
    axes.set_xlabel("the feature of a record (standard deviations)")
    axes.set_ylabel("what the GroupNorm leaves of it")
    axes.set_title(f"One of {FEATURES} features, {len(before)} records")
    legend_below(figure, axes)
    return figure
