"""Topic `dataset-normalization`: a dataset that is normalized by its own moments."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dpnorm.data import Records, load
from dpnorm.detection.sensitivity import gaussian_epsilon
from dpnorm.errors import unknown_name
from dpnorm.explain.drawing import BROKEN, KEPT, epsilon_bars
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.pair import CLIP, ROUNDING, Pair, clipped_sum, gradients, moved
from dpnorm.figures import legend_below, look, new_figure
from dpnorm.privacy import privatize_moments
from dpnorm.privacy.accounting import epsilon_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE, DELTA = 2, 1e-5
RELEASE_NOISE, TRAINING_NOISE, BATCH, STEPS = 10, 1, 64, 400
OWN, CONSTANTS, PRIVATE = "its own moments", "constants", "private moments"
_CHUNK, _SEED = 128, 0


def measure(subject: str = OWN, control: str = CONSTANTS) -> Measured:
    """Adds a record to a dataset that is normalized in each way.

    Args:
        subject: what is said to break the bound: "its own moments" or "constants".
        control: what is said to keep it.
    """
    data, pair = load("digits"), Pair("group")
    # on the scale of the files, where a pixel lies between 0 and 1
    x = torch.cat([data.train.x, pair.x[-1:]]) / 2 + 0.5
    y = torch.cat([data.train.y, pair.y[-1:]])
    original = dataclasses.replace(data, train=Records(x[:-1], y[:-1]), bounds=(0.0, 1.0))
    private = privatize_moments(original, noise_multiplier=RELEASE_NOISE, delta=DELTA, seed=_SEED)
    released = float(private.mean), float(private.std)

    ways = {
        "subject": [_moments(subject, part) for part in (x[:-1], x)],
        "control": [_moments(control, part) for part in (x[:-1], x)],
        "private": [released, released],
    }
    numbers: dict[str, float] = {"claimed": _spent((NOISE, 1.0, 1))}
    shares: dict[str, Tensor] = {}
    for who, ((mean, std), (mean_with, std_with)) in ways.items():
        shift, shares[who] = _movements(
            pair.network, (x[:-1] - mean) / std, (x - mean_with) / std_with, y
        )
        numbers[f"shift_{who}"] = shift
        numbers[f"epsilon_{who}"] = gaussian_epsilon(shift / NOISE, DELTA)
    exact = _moments(OWN, x[:-1])
    training = (TRAINING_NOISE, BATCH / len(y[:-1]), STEPS)
    numbers |= {
        "brightness": float(x[-1].double().mean()),
        "recovered": len(x) * _moments(OWN, x)[0] - len(x[:-1]) * exact[0],
        "mean_error": abs(released[0] - exact[0]) / exact[1],
        "std_error": abs(released[1] - exact[1]) / exact[1],
        "epsilon_training": _spent(training),
        "epsilon_together": _spent(training, (RELEASE_NOISE, 1.0, 1)),
    }
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "records": len(y[:-1]), "clip": CLIP,
        "noise": NOISE, "delta": DELTA, "release_noise": RELEASE_NOISE, "steps": STEPS,
        "batch": BATCH, "training_noise": TRAINING_NOISE,
    }  # fmt: skip
    names = {"subject": subject, "control": control, "private": PRIVATE}
    return Measured(
        numbers, settings, _claims(numbers, subject, control), _pictures(names, numbers, shares)
    )


def _claims(n: dict[str, float], subject: str, control: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"by {subject}, the clipped sum moves by more than C", n["shift_subject"] > 1 + ROUNDING
        ),
        Claim(f"by {control}, it moves by at most C", n["shift_control"] <= 1 + ROUNDING),
        Claim("by private moments, it moves by at most C", n["shift_private"] <= 1 + ROUNDING),
        Claim(
            f"by {subject}, the reported epsilon is too small",
            n["claimed"] < n["epsilon_subject"],
        ),
        Claim(f"by {control}, it is not", n["claimed"] >= n["epsilon_control"]),
        Claim(
            "the published mean gives the added record's brightness away",
            abs(n["recovered"] - n["brightness"]) < 1e-3,
        ),
        Claim(
            "private moments cost epsilon, and the accountant counts it",
            n["epsilon_together"] > n["epsilon_training"],
        ),
    )


def _moments(way: str, x: Tensor) -> tuple[float, float]:
    """A mean and a standard deviation of all pixels."""
    if way == OWN:
        return float(x.double().mean()), float(x.double().std())
    if way == CONSTANTS:
        return 0.5, 0.5
    raise unknown_name("normalization", way, (OWN, CONSTANTS))


def _spent(*runs: tuple[float, float, int]) -> float:
    return epsilon_of(list(runs), delta=DELTA, accountant="prv")


def _movements(
    network: nn.Module, before: Tensor, after: Tensor, y: Tensor
) -> tuple[float, Tensor]:
    """Of the clipped sum in units of C, and of each gradient; `network` mixes no records.

    Args:
        network: whose gradients are taken.
        before: (records, *shape), the smaller dataset.
        after: the same and, last, one record more.
        y: labels of `after`.
    """
    shift = clipped_sum(gradients(network, after[-1:], y[-1:]))
    shares = []
    for part in torch.arange(len(before)).split(_CHUNK):
        rows, rows_after = (gradients(network, x[part], y[part]) for x in (before, after))
        shift += clipped_sum(rows_after) - clipped_sum(rows)
        shares.append(moved(rows, rows_after))
    return float(shift.norm()) / CLIP, torch.cat(shares)


def _pictures(
    names: dict[str, str], n: dict[str, float], shares: dict[str, Tensor]
) -> tuple[Picture, ...]:
    """Of what one record does to all others, and to epsilon; by the names of the three ways."""
    ways = {who: f"by {name}" for who, name in names.items()}
    epsilons = {way: n[f"epsilon_{who}"] for who, way in ways.items()}
    more, not_more = ("more than is reported", BROKEN), ("not more than is reported", KEPT)
    kinds = {way: more if epsilon > n["claimed"] else not_more for way, epsilon in epsilons.items()}
    compared = ", ".join(ways.values())
    return (
        Picture(
            "gradients",
            f"How far the gradient of each of {len(shares['subject'])} records moves when another "
            f"record is added and the dataset is normalized {compared}.",
            functools.partial(_sorted, {way: shares[who] for who, way in ways.items()}),
        ),
        Picture(
            "epsilon",
            "The exact epsilon of the dataset without and with one record, over the one that is "
            f"reported for all: normalized {compared}.",
            functools.partial(
                epsilon_bars, epsilons, kinds, ("epsilon reported for all", n["claimed"]), DELTA
            ),
        ),
    )


def _sorted(shares: dict[str, Tensor]) -> "Figure":
    """The movements of all gradients in order; dashes let lines be seen that coincide."""
    figure, axes = new_figure()
    for (way, share), one, line in zip(
        shares.items(), (BROKEN, KEPT, look("scale")), ("-", "-", (0, (4, 4))), strict=True
    ):
        axes.plot(100 * share.sort().values, color=one.light, linestyle=line, label=way)
    axes.set_xlabel("records, sorted by movement")
    axes.set_ylabel("movement of its gradient (% of its length)")
    axes.set_title("One record more")
    legend_below(figure, axes)
    return figure
