"""Topic `dataset-normalization`: a dataset that is normalized by its own moments."""

import dataclasses

import torch
from torch import Tensor, nn

from dpnorm.data import Records, load
from dpnorm.detection.sensitivity import gaussian_epsilon
from dpnorm.errors import unknown_name
from dpnorm.explain.explanation import Claim, Measured, Setting
from dpnorm.explain.pair import CLIP, ROUNDING, Pair, clipped_sum, gradients
from dpnorm.privacy import privatize_moments
from dpnorm.privacy.accounting import epsilon_of

NOISE, DELTA = 2, 1e-5
RELEASE_NOISE, TRAINING_NOISE, BATCH, STEPS = 10, 1, 64, 400
OWN, CONSTANTS = "its own moments", "constants"
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
    for who, ((mean, std), (mean_with, std_with)) in ways.items():
        before = _sum(pair.network, (x[:-1] - mean) / std, y[:-1])
        after = _sum(pair.network, (x - mean_with) / std_with, y)
        shift = float((after - before).norm()) / CLIP
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
    return Measured(numbers, settings, _claims(numbers, subject, control))


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


def _sum(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The sum of clipped gradients, of a network that mixes no records."""
    parts = zip(x.split(_CHUNK), y.split(_CHUNK), strict=True)
    return torch.stack([clipped_sum(gradients(network, *part)) for part in parts]).sum(0)
