"""Topic `coupling`: with BatchNorm one record moves the gradients of all others."""

import functools

from torch import Tensor

from dpnorm.detection.sensitivity import gaussian_epsilon
from dpnorm.explain.drawing import record_movements
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.pair import CLIP, RECORDS, ROUNDING, Pair, clipped_sum, moved
from dpnorm.figures import look
from dpnorm.privacy.accounting import epsilon_spent

NOISE, DELTA = 2, 1e-5


def measure(subject: str = "batch", control: str = "group") -> Measured:
    """Adds a record with either normalization.

    Args:
        subject: the variant that is said to break the bound.
        control: the variant that is said to keep it.
    """
    rows = {"subject": _movements(subject), "control": _movements(control)}
    numbers: dict[str, float] = {
        "claimed": epsilon_spent(
            noise_multiplier=NOISE, sampling_rate=1.0, steps=1, delta=DELTA, accountant="prv"
        )
    }
    for who, (activations, gradients, shift) in rows.items():
        numbers[f"activation_{who}"] = float(activations.mean())
        numbers[f"gradient_{who}"] = float(gradients.mean())
        numbers[f"shift_{who}"] = shift
        numbers[f"epsilon_{who}"] = gaussian_epsilon(shift / NOISE, DELTA)
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "records": RECORDS, "clip": CLIP,
        "noise": NOISE, "delta": DELTA,
    }  # fmt: skip
    shares = {
        name: (look(name), rows[who][1])
        for who, name in (("subject", subject), ("control", control))
    }
    picture = Picture(
        "gradients",
        f"How far the gradient of each of {RECORDS} records moves when another record is added: "
        f"{subject} against {control} normalization.",
        functools.partial(record_movements, shares),
    )
    return Measured(numbers, settings, _claims(numbers, subject, control), (picture,))


def _movements(variant: str) -> tuple[Tensor, Tensor, float]:
    """Of the other records' activations and gradients, and of the clipped sum."""
    pair = Pair(variant)
    before, after = pair.gradients(RECORDS), pair.gradients(RECORDS + 1)
    activations = moved(pair.normalized(RECORDS), pair.normalized(RECORDS + 1)[:RECORDS])
    shift = (clipped_sum(after) - clipped_sum(before)).norm() / CLIP
    return activations, moved(before, after[:RECORDS]), float(shift)


def _claims(n: dict[str, float], subject: str, control: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"with {subject} normalization the other records' activations and gradients move",
            min(n["activation_subject"], n["gradient_subject"]) > 0.01,
        ),
        Claim(
            f"with {control} normalization they do not",
            max(n["activation_control"], n["gradient_control"]) <= ROUNDING,
        ),
        Claim(
            f"with {subject} normalization the clipped sum moves by more than C",
            n["shift_subject"] > 1,
        ),
        Claim(
            f"with {control} normalization it moves by at most C",
            n["shift_control"] <= 1 + ROUNDING,
        ),
        Claim(
            f"with {subject} normalization the reported epsilon is too small",
            n["claimed"] < n["epsilon_subject"],
        ),
        Claim(
            f"with {control} normalization it is not",
            n["claimed"] >= n["epsilon_control"],
        ),
    )
