"""Bars of one value an arm, grouped by target epsilon: what stays memorized, what it cost."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dpnorm.benchmark.report_series import (
    SEEDS,
    Grid,
    Plot,
    Subject,
    arm_cells,
    arm_names,
    epsilon_ticks,
    estimate_cells,
    plot,
    sides,
    three,
)
from dpnorm.benchmark.results import Row, Timing
from dpnorm.figures import INK, Look
from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def memorization(subject: Subject) -> Iterator[Plot]:
    """The share of outliers memorized at the end."""
    shown = [row for row in subject.trained if row.memorized is not None]
    if not shown:
        return

    def draw(axes: "Axes") -> None:
        _bars(axes, subject, lambda row: row.memorized, 100)
        axes.set(ylabel="outliers memorized (%)")

    yield plot(
        "memorization",
        "Outliers memorized at the end",
        "The share of outliers memorized, with its interval: a bar a variant, grouped by target "
        f"epsilon. Hollow bars are void arms, a cross is an arm that was not trained. {SEEDS}.",
        subject,
        draw,
        Grid(
            (*arm_names, *three("memorized")),
            tuple((*arm_cells(row), *estimate_cells(row.memorized)) for row in shown),
        ),
    )


def cost(subject: Subject) -> Iterator[Plot]:
    """The seconds that the trainings of an arm took."""
    if not subject.timings:
        return
    taken = {(t.variant, t.target_epsilon, t.seed): t for t in subject.timings}

    def seconds(row: Row) -> Estimate | None:
        timing = taken.get((row.variant, row.target_epsilon, row.seed))
        return None if timing is None else Estimate(*[timing.training] * 3)

    def draw(axes: "Axes") -> None:
        _bars(axes, subject, seconds, 1)
        axes.set(ylabel="training of all models (s)")

    yield plot(
        "cost",
        "Time to train",
        "Seconds of wall clock, summed over the models of an arm: a bar a variant, grouped by "
        f"target epsilon. Hollow bars are void arms. {SEEDS}.",
        subject,
        draw,
        Grid(
            ("variant", "target_epsilon", "seed", "training_s", "attacks_s", "audits_s",
             "peak_bytes"),
            tuple(map(_timing_cells, subject.timings)),
        ),
    )  # fmt: skip


def _timing_cells(t: Timing) -> tuple[str | float | None, ...]:
    return (
        *(t.variant, t.target_epsilon, t.seed),
        *(t.training, t.attacks, t.audits, t.peak_bytes),
    )


def _bars(
    axes: "Axes", subject: Subject, of: Callable[[Row], Estimate | None], scale: float
) -> None:
    epsilons, variants = subject.epsilons[::-1], subject.variants
    width = 0.84 / len(variants)
    arms = {(arm.variant, arm.target_epsilon): arm for arm in subject.arms}
    for i, variant in enumerate(variants):
        one = subject.looks[variant]
        axes.plot([], [], "s", color=one.light, markersize=8, label=subject.label(variant))
        for group, epsilon in enumerate(epsilons):
            x = group + (i - (len(variants) - 1) / 2) * width
            arm = arms.get((variant, epsilon))
            value = None if arm is None else arm.over_seeds(of)
            if arm is not None and value is not None:
                _bar(axes, x, 0.86 * width, value, scale, one, hollow=arm.void)
            elif any(r.variant == variant and r.target_epsilon == epsilon for r in subject.rows):
                axes.plot(
                    [x], [0.02], marker="x", color=one.light, markersize=5, clip_on=False,
                    transform=axes.get_xaxis_transform(),
                )  # fmt: skip
    epsilon_ticks(axes, {epsilon: float(i) for i, epsilon in enumerate(epsilons)})
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.5, len(epsilons) - 0.5)
    axes.set_ylim(min(0, axes.get_ylim()[0]), None)


def _bar(
    axes: "Axes", x: float, width: float, value: Estimate, scale: float, look: Look, *, hollow: bool
) -> None:
    height = scale * value.value
    axes.bar(
        [x], [height], width, edgecolor=look.light, linewidth=1.2 if hollow else 0,
        color="none" if hollow else look.light,
    )  # fmt: skip
    if value.low < value.high:
        axes.errorbar(
            [x], [height], yerr=sides(value, scale), color=INK, capsize=2, elinewidth=1,
            capthick=1, linestyle="none",
        )  # fmt: skip
