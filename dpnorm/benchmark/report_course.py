"""What happens while an arm is trained: outliers memorized and gradient norms, by epoch."""

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
    estimate_cells,
    plot,
    three,
)
from dpnorm.benchmark.report_words import number_in
from dpnorm.benchmark.results import Norms, Row
from dpnorm.benchmark.tables import VOID, epsilon_text
from dpnorm.figures import INK, LINES, Look, literal
from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = ("q05", "q25", "q50", "q75", "q95")
_GROUPS = (("ordinary records", "rest", -1), ("outliers", "outliers", 1))


def _arms(epsilon: float) -> str:
    return "plain training" if math.isinf(epsilon) else f"target ε = {epsilon_text(epsilon, None)}"


def course(subject: Subject) -> Iterator[Plot]:
    """The share of outliers memorized after epochs, a plot a target epsilon."""
    for epsilon in subject.epsilons[::-1]:
        arms = [a for a in subject.arms if a.target_epsilon == epsilon]
        arms = [arm for arm in arms if any(row.course for row in arm.rows)]
        if arms:
            yield _course_plot(subject, epsilon, arms)


def _course_plot(subject: Subject, epsilon: float, arms: Sequence[Arm]) -> Plot:
    return plot(
        f"memorization-epochs-{epsilon:g}",
        f"Outliers memorized, {_arms(epsilon)}",
        f"The share of outliers memorized after each watched epoch, a line a variant, with bands "
        f"for its interval; hollow markers are void arms. {SEEDS}.",
        subject,
        lambda axes: _draw_course(axes, subject, arms),
        Grid(
            (*arm_names, "epoch", *three("memorized")),
            tuple(
                (*arm_cells(row), epoch, *estimate_cells(estimate))
                for arm in arms
                for row in arm.rows
                for epoch, estimate in row.course
            ),
        ),
    )


def _draw_course(axes: "Axes", subject: Subject, arms: Sequence[Arm]) -> None:
    from matplotlib.ticker import MaxNLocator

    for arm in arms:
        epochs = sorted({epoch for row in arm.rows for epoch, _ in row.course})
        values = [_after(arm, epoch) for epoch in epochs]
        look, i = subject.looks[arm.variant], subject.variants.index(arm.variant)
        low, high = [100 * v.low for v in values], [100 * v.high for v in values]
        axes.fill_between(epochs, low, high, color=look.light, alpha=0.1, linewidth=0)
        axes.plot(
            epochs, [100 * v.value for v in values], color=look.light, marker=look.marker,
            markersize=5, linestyle=LINES[i % len(LINES)], linewidth=1.4,
            markerfacecolor="none" if arm.void else look.light, label=_label(arm),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(min(0, axes.get_ylim()[0]), None)
    axes.set(xlabel="epoch", ylabel="outliers memorized (%)")


def _after(arm: Arm, epoch: int) -> Estimate:
    found = arm.over_seeds(lambda row: dict(row.course).get(epoch))
    assert found is not None
    return found


def _label(arm: Arm) -> str:
    return literal(arm.variant) + (f" ({VOID})" if arm.void else "")


def norms(subject: Subject) -> Iterator[Plot]:
    """Gradient norms at the last watched epoch, and their medians by epoch."""
    for epsilon in subject.epsilons[::-1]:
        rows = [
            row
            for row in subject.trained
            if row.target_epsilon == epsilon and row.norms and row.seed == _first_seed(subject)
        ]
        if not rows:
            continue
        data = Grid(
            (*arm_names, "epoch", "records", *QUANTILES),
            tuple(
                (*arm_cells(row), one.epoch, label, *quantiles)
                for row in rows
                for one in row.norms
                for label, name, _ in _GROUPS
                if (quantiles := _quantiles(one, name))
            ),
        )
        seed = f" of seed {rows[0].seed}" if len(subject.seeds) > 1 else ""
        last = max(row.norms[-1].epoch for row in rows)
        yield plot(
            f"norms-last-{epsilon:g}",
            f"Gradient norms, {_arms(epsilon)}, after epoch {last}",
            f"Norms of the training records' gradients before clipping{seed}: for each variant "
            "ordinary records (filled) and outliers (hollow). Marker: median; thick: the middle "
            "half; thin: from the 5% to the 95% quantile; the dashed line of "
            "private training is the clipping norm.",
            subject,
            lambda axes, rows=rows: _draw_norms(axes, subject, rows),  # type: ignore[misc]
            data,
            brief=Grid(data.header, tuple(r for r in data.rows if r[len(arm_names)] == last)),
        )
        if any(len(row.norms) > 1 for row in rows):
            yield plot(
                f"norms-epochs-{epsilon:g}",
                f"Median gradient norms, {_arms(epsilon)}",
                f"Medians by epoch{seed}, a colour a variant: ordinary records solid and filled, "
                "outliers dashed and hollow; the horizontal line of "
                "private training is the clipping norm.",
                subject,
                lambda axes, rows=rows: _draw_medians(axes, subject, rows),  # type: ignore[misc]
                data,
            )


def _first_seed(subject: Subject) -> int:
    return min(row.seed for row in subject.trained if row.norms)


def _quantiles(one: Norms, name: str) -> tuple[float, ...]:
    quantiles: tuple[float, ...] = getattr(one, name)
    return quantiles


def _draw_norms(axes: "Axes", subject: Subject, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        look = subject.looks[row.variant]
        for _, name, side in _GROUPS:
            quantiles = _quantiles(row.norms[-1], name)
            if quantiles:
                _box(axes, place + 0.16 * side, quantiles, look, hollow=side > 0)
    for label, _, side in _GROUPS:
        axes.plot([], [], "o", color=INK, label=label, markerfacecolor="none" if side > 0 else INK)
    _clipping_norm(axes, rows)
    names = [literal(r.variant) + (f" ({VOID})" if r.void else "") for r in rows]
    axes.set_xticks(range(len(rows)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(visible=False, axis="x")
    axes.set(yscale="log", ylabel="gradient norm before clipping")


def _box(axes: "Axes", x: float, quantiles: Sequence[float], look: Look, *, hollow: bool) -> None:
    lowest, low, median, high, highest = quantiles
    axes.plot([x, x], [lowest, highest], color=look.light, linewidth=1)
    axes.plot([x, x], [low, high], color=look.light, linewidth=3.6, solid_capstyle="butt")
    axes.plot(
        [x], [median], "o", color=look.light, markersize=6.5, markeredgewidth=1.5,
        markerfacecolor="white" if hollow else look.light,
    )  # fmt: skip


def _draw_medians(axes: "Axes", subject: Subject, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    for row in rows:
        look = subject.looks[row.variant]
        label: str | None = literal(row.variant) + (f" ({VOID})" if row.void else "")
        for _, name, side in _GROUPS:
            points = [(n.epoch, q[2]) for n in row.norms if (q := _quantiles(n, name))]
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=look.light, marker=look.marker, label=label,
                    markersize=4.5, linewidth=1.2, linestyle="--" if side > 0 else "-",
                    markerfacecolor="none" if side > 0 else look.light,
                )  # fmt: skip
                label = None
    _clipping_norm(axes, rows)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(yscale="log", xlabel="epoch", ylabel="median gradient norm")


def _clipping_norm(axes: "Axes", rows: Sequence[Row]) -> None:
    clips = {clip for row in rows if (clip := number_in(row.statement, "clip")) is not None}
    for clip in sorted(clips):
        label = f"clipping norm {clip:g}"
        axes.axhline(clip, color=INK, linestyle="--", linewidth=1.1, label=label)
