"""ROC curves of the strongest attack, a plot a target epsilon."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpnorm.benchmark.report_series import Grid, Plot, Subject, arm_cells, arm_names, plot
from dpnorm.benchmark.results import Curve, Row
from dpnorm.benchmark.tables import VOID, attack_label, bracketed, epsilon_text
from dpnorm.figures import INK, LINES, literal
from dpnorm.leakage.plots import resolved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AT = (0.001, 0.01, 0.1)  # the false-positive rates of the table


def roc(subject: Subject) -> Iterator[Plot]:
    """A plot for each target epsilon that has curves, plain training first."""
    attack = subject.attack
    for epsilon in subject.epsilons[::-1]:
        rows = [
            row
            for row in subject.trained
            if row.target_epsilon == epsilon and attack in row.roc and row.roc[attack].fpr
        ]
        if rows:
            yield _plot(subject, epsilon, rows)


def _plot(subject: Subject, epsilon: float, rows: Sequence[Row]) -> Plot:
    attack, target = subject.attack, epsilon_text(epsilon, None)
    arms = "plain training" if math.isinf(epsilon) else f"target ε = {target}"
    points = [
        (*arm_cells(row), f, t)
        for row in rows
        for f, t in zip(*visible(row.roc[attack]), strict=True)
    ]
    rates = tuple(f"tpr_at_fpr_{at:g}" for at in _AT)
    return plot(
        f"roc-{epsilon:g}",
        f"{attack_label(attack)}, {arms}",
        f"True-positive against false-positive rate of the attack {attack_label(attack)}, both "
        "axes logarithmic, a line a variant; the dashed diagonal is guessing. Left of the "
        "resolution limit, one non-member, no rate can be told.",
        subject,
        lambda axes: _draw(axes, subject, rows),
        Grid((*arm_names, "fpr", "tpr"), tuple(points)),
        brief=Grid(
            (*arm_names, f"{attack}_auc", *rates, "resolution_limit"),
            tuple(
                (
                    *arm_cells(row),
                    bracketed(row.auc.get(attack), 1, 3),
                    *(rate_at(row.roc[attack], at) for at in _AT),
                    _limit(row.roc[attack]),
                )
                for row in rows
            ),
        ),
    )


def visible(curve: Curve) -> tuple[list[float], list[float]]:
    """The part of a curve that n non-members can resolve: from a false-positive rate of 1/n.

    >>> visible(Curve((0.0, 0.05, 0.2, 1.0), (0.1, 0.3, 0.6, 1.0), non_members=10))
    ([0.1, 0.2, 1.0], [0.3, 0.6, 1.0])
    """
    fpr, tpr = resolved(np.array(curve.fpr), np.array(curve.tpr), curve.non_members)
    return fpr.tolist(), tpr.tolist()


def rate_at(curve: Curve, fpr: float) -> float | None:
    """The highest true-positive rate up to a false-positive rate; None below the resolution.

    >>> rate_at(Curve((0.0, 0.05, 0.2, 1.0), (0.1, 0.3, 0.6, 1.0), non_members=10), 0.1)
    0.3
    """
    if fpr < _limit(curve):
        return None
    pairs = zip(curve.fpr, curve.tpr, strict=True)
    return max((t for f, t in pairs if f <= fpr), default=0.0)


def _limit(curve: Curve) -> float:
    return 1 / max(1, curve.non_members)


def _draw(axes: "Axes", subject: Subject, rows: Sequence[Row]) -> None:
    attack = subject.attack
    floor = min(_limit(row.roc[attack]) for row in rows)
    left = floor / 1.7
    labelled: set[str] = set()
    for row in rows:
        fpr, tpr = visible(row.roc[attack])
        i, look = subject.variants.index(row.variant), subject.looks[row.variant]
        axes.plot(
            fpr, [t if t > 0 else math.nan for t in tpr], color=look.light, marker=look.marker,
            markevery=0.14, markersize=4.5, linewidth=1.4, linestyle=LINES[i % len(LINES)],
            label=None if row.variant in labelled else _label(row),
            markerfacecolor="none" if row.void else look.light,
        )  # fmt: skip
        labelled.add(row.variant)
    axes.plot([left, 1], [left, 1], color=INK, linestyle="--", linewidth=1)
    axes.axvline(floor, color=INK, linewidth=1, linestyle=":")
    axes.axvspan(left, floor, color=INK, alpha=0.1, linewidth=0)
    axes.text(
        floor * 1.06, 0.96, f"resolution limit 1/{round(1 / floor)}", fontsize=8.5, va="top",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(left, 1.05), ylim=(left, 1.3))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")


def _label(row: Row) -> str:
    return literal(row.variant) + (f" ({VOID})" if row.void else "")
