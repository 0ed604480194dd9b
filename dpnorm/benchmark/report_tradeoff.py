"""What privacy costs in accuracy, and what accuracy costs in leakage."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dpnorm.benchmark.report_series import (
    SEEDS,
    Arm,
    Grid,
    Plot,
    Subject,
    arm_cells,
    arm_names,
    epsilon_ticks,
    estimate_cells,
    plot,
    point,
    sides,
    three,
    void_entry,
)
from dpnorm.benchmark.tables import attack_label, epsilon_text
from dpnorm.figures import INK
from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measured = tuple[Arm, Estimate, Estimate]  # an arm, its accuracy and its leakage


def accuracy(subject: Subject) -> Iterator[Plot]:
    """Accuracy against epsilon."""
    shown = [row for row in subject.trained if row.accuracy is not None]
    if shown:
        yield plot(
            "accuracy",
            "Accuracy against epsilon",
            "Mean test accuracy with its interval against the target epsilon, a line a variant, "
            "plain training at the right. Variants stand a little apart so that their bars can be "
            f"told. Hollow markers are void arms, at the epsilon that was aimed at. {SEEDS}.",
            subject,
            lambda axes: _draw_accuracy(axes, subject),
            Grid(
                (*arm_names, *three("accuracy")),
                tuple((*arm_cells(row), *estimate_cells(row.accuracy)) for row in shown),
            ),
        )


def positions(epsilons: Sequence[float]) -> dict[float, float]:
    """Places epsilons on a binary logarithmic axis, infinity as a category at its right end."""
    finite = {value: math.log2(value) for value in epsilons if math.isfinite(value)}
    span = max(finite.values()) - min(finite.values()) if finite else 0.0
    right = (max(finite.values()) if finite else 0.0) + max(1.0, span / 2)
    return {value: finite.get(value, right) for value in epsilons}


def _draw_accuracy(axes: "Axes", subject: Subject) -> None:
    places = positions(subject.epsilons)
    width = max(places.values()) - min(places.values()) or 1.0
    variants = subject.variants
    for i, variant in enumerate(variants):
        shift = (i - (len(variants) - 1) / 2) * 0.014 * width
        look = subject.looks[variant]
        points = [
            (places[arm.target_epsilon] + shift, value, arm)
            for arm in sorted(subject.arms, key=lambda arm: arm.target_epsilon)
            if arm.variant == variant
            and (value := arm.over_seeds(lambda row: row.accuracy)) is not None
        ]
        for (x, a, left), (to, b, right) in itertools.pairwise(points):
            bridge = left.void or right.void or math.isinf(right.target_epsilon)
            line = ":" if bridge else "-"
            axes.plot(
                [x, to], [100 * a.value, 100 * b.value], color=look.light, linestyle=line,
                linewidth=1 if bridge else 1.6,
            )  # fmt: skip
        for x, value, arm in points:
            at = (x, 100 * value.value)
            point(axes, at, look, hollow=arm.void, y=sides(value))
        if points:
            hollow = all(arm.void for _, _, arm in points)
            axes.plot(
                [], [], color=look.light, marker=look.marker, label=subject.label(variant),
                markerfacecolor="none" if hollow else look.light,
            )  # fmt: skip
    void_entry(axes, subject)
    epsilon_ticks(axes, places)
    axes.set(ylabel="test accuracy (%)")


def leakage(subject: Subject) -> Iterator[Plot]:
    """Leakage against accuracy, with the frontier."""
    attack = subject.attack
    measured = [
        (arm, a, b)
        for arm in subject.arms
        if (a := arm.over_seeds(lambda row: row.accuracy)) is not None
        and (b := arm.over_seeds(lambda row: row.auc.get(attack))) is not None
    ]
    if not measured:
        return
    best = frontier(measured)
    on = {(arm.variant, arm.target_epsilon) for arm, _, _ in best}
    yield plot(
        "leakage",
        "Leakage against accuracy",
        f"{attack_label(attack)} AUC against mean test accuracy with their intervals, a point a "
        "variant and target epsilon: the larger the marker, the larger epsilon. 0.5 is guessing. "
        "The line is the frontier: no arm is both more accurate and less leaky than one on it; "
        f"void arms, drawn hollow, cannot be on it. {SEEDS}.",
        subject,
        lambda axes: _draw_leakage(axes, subject, measured, best),
        Grid(
            (*arm_names, *three("accuracy"), *three(f"{attack}_auc"), "on_frontier"),
            tuple(
                (
                    *arm_cells(row),
                    *estimate_cells(row.accuracy),
                    *estimate_cells(row.auc.get(attack)),
                    (row.variant, row.target_epsilon) in on,
                )
                for row in subject.trained
                if row.accuracy is not None and attack in row.auc
            ),
        ),
    )


def frontier(measured: Sequence[Measured]) -> list[Measured]:
    """The arms that no other beats in accuracy and in leakage, by ascending accuracy.

    Void arms are left out, for nobody should choose them.
    """
    kept: list[Measured] = []
    best = math.inf
    for one in sorted((m for m in measured if not m[0].void), key=_preference):
        if one[2].value < best:
            best = one[2].value
            kept.append(one)
    return kept[::-1]


def _preference(one: Measured) -> tuple[float, float]:
    return -one[1].value, one[2].value


def _draw_leakage(
    axes: "Axes", subject: Subject, measured: Sequence[Measured], best: Sequence[Measured]
) -> None:
    axes.axhline(0.5, color=INK, linestyle="--", linewidth=1)
    sizes = {epsilon: 3.8 + 1.6 * i for i, epsilon in enumerate(subject.epsilons)}
    for arm, accuracy, auc in measured:
        at = (100 * accuracy.value, auc.value)
        bars = {"x": sides(accuracy), "y": sides(auc, 1)}
        look = subject.looks[arm.variant]
        point(axes, at, look, hollow=arm.void, size=sizes[arm.target_epsilon], **bars)
    steps = [(100 * a.value, b.value) for _, a, b in best]
    axes.plot(
        *zip(*steps, strict=True), color=INK, linewidth=1.6, label="frontier", zorder=1.5
    ) if steps else None
    for arm, accuracy, auc in {arm.target_epsilon: (arm, a, b) for arm, a, b in best}.values():
        axes.annotate(
            f"ε {epsilon_text(arm.target_epsilon, None)}", (100 * accuracy.value, auc.value),
            (6, -11), fontsize=9, textcoords="offset points",
        )  # fmt: skip
    for variant in subject.variants:
        look = subject.looks[variant]
        if any(arm.variant == variant for arm, _, _ in measured):
            axes.plot(
                [], [], color=look.light, marker=look.marker, linestyle="none",
                label=subject.label(variant),
            )  # fmt: skip
    void_entry(axes, subject)
    axes.set(xlabel="test accuracy (%)", ylabel=f"{attack_label(subject.attack)} AUC")
