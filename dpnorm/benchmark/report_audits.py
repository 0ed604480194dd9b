"""Audited lower bounds on epsilon against what is claimed."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dpnorm.benchmark.report_series import (
    Grid,
    Plot,
    Subject,
    arm_cells,
    arm_names,
    plot,
    void_entry,
)
from dpnorm.benchmark.report_words import bound_number
from dpnorm.benchmark.results import Audited, Row
from dpnorm.figures import INK, literal
from dpnorm.leakage.plots.bounds import VIOLATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^v"
_SPREAD = 0.17  # of the axis, over which audits of one claim stand apart
_RING: dict[str, Any] = {
    "color": VIOLATION, "marker": "o", "markersize": 13, "linestyle": "none",
    "markerfacecolor": "none", "markeredgewidth": 1.6,
}  # fmt: skip


def audits(subject: Subject) -> Iterator[Plot]:
    """One plot of all audits of private arms."""
    found = [(r, a) for r in subject.trained for a in r.audits if math.isfinite(place(r, a))]
    if not found:
        return
    yield plot(
        "audits",
        "Audited bounds against claims",
        "The lower bound on epsilon that each audit shows against the epsilon that is claimed. "
        "Above the line y = x a claim is refuted; a ring marks it. Audits of one claim stand "
        "apart, with a short line at the height of their claim. The dash above a marker is its "
        "ceiling, the most that its audit could have shown. Void arms claim nothing: they are "
        "drawn hollow, at the epsilon that was aimed at.",
        subject,
        lambda axes: _draw(axes, subject, found),
        Grid(
            (*arm_names, "audit", "claimed_epsilon", "audited_epsilon", "ceiling", "exceeded"),
            tuple(
                (
                    *arm_cells(row),
                    audit.kind,
                    None if row.void else audit.claimed,
                    bound_number(audit, "epsilon"),
                    bound_number(audit, "ceiling"),
                    audit.exceeded,
                )
                for row, audit in found
            ),
        ),
    )


def place(row: Row, audit: Audited) -> float:
    """Where an audit is drawn: at the claim, or at the target of an arm that may claim nothing."""
    return row.target_epsilon if row.void else audit.claimed


def _draw(axes: "Axes", subject: Subject, found: list[tuple[Row, Audited]]) -> None:
    numbers = [
        n
        for row, audit in found
        for n in (place(row, audit), bound_number(audit, "epsilon"), bound_number(audit, "ceiling"))
    ]
    top = 1.12 * max((n for n in numbers if math.isfinite(n)), default=1.0)
    axes.fill_between([0, top], [0, top], top, color=VIOLATION, alpha=0.06, linewidth=0)
    axes.text(0.03 * top, 0.97 * top, "claim refuted", color=VIOLATION, fontsize=9, va="top")
    axes.plot([0, top], [0, top], color=INK, linestyle="--", linewidth=1.2, label="y = x")
    kinds = list(dict.fromkeys(audit.kind for _, audit in found))
    room = min(_SPREAD * top, 1.7 * min(place(row, audit) for row, audit in found))
    for epsilon in subject.epsilons:
        group = [(r, a) for r, a in found if r.target_epsilon == epsilon]
        for i, (row, audit) in enumerate(group):
            claim = place(row, audit)
            x = claim + room * ((i + 0.5) / len(group) - 0.5)
            marker = _MARKERS[kinds.index(audit.kind) % len(_MARKERS)]
            axes.plot([claim - room / 2, claim + room / 2], [claim] * 2, color=INK, linewidth=1)
            _point(axes, x, row, audit, subject, marker, top)
    for kind, marker in zip(kinds, _MARKERS, strict=False):
        axes.plot([], [], marker, color=INK, label=literal(kind))
    axes.plot([], [], "_", color=INK, label="ceiling")
    for variant in subject.variants:
        if any(row.variant == variant for row, _ in found):
            colour = subject.looks[variant].light
            axes.plot([], [], color=colour, linewidth=4, label=subject.label(variant))
    void_entry(axes, subject)
    if any(audit.exceeded for _, audit in found):
        axes.plot([], [], label="refutes its claim", **_RING)
    axes.set(xlim=(0, top), ylim=(-0.02 * top, top))
    axes.set(xlabel="claimed ε (target ε of void arms)", ylabel="audited ε, lower bound")


def _point(
    axes: "Axes", x: float, row: Row, audit: Audited, subject: Subject, marker: str, top: float
) -> None:
    colour = subject.looks[row.variant].light
    value, ceiling = (min(bound_number(audit, key), top) for key in ("epsilon", "ceiling"))
    cap = "_" if math.isfinite(bound_number(audit, "ceiling")) else "^"
    axes.plot([x], [ceiling], cap, color=colour, markersize=5, markeredgewidth=1.2)
    axes.plot(
        [x], [value], marker, color=colour, markersize=4.5, markeredgewidth=1.2,
        markerfacecolor="none" if row.void else colour,
    )  # fmt: skip
    if audit.exceeded:
        axes.plot([x], [value], **_RING)
