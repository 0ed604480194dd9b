"""What audits measured against what was claimed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dpnorm.errors import InputError
from dpnorm.figures import INK, legend_below, literal, looks, new_figure, style
from dpnorm.leakage.bound import Bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

VIOLATION = "#b3001b"
_RING: dict[str, Any] = {
    "color": VIOLATION,
    "marker": "o",
    "markersize": 15,
    "linestyle": "none",
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
}
_APART = 7  # points between audits of the same claim


def bound_figure(points: Sequence[tuple[str, float, Bound]], title: str = "") -> "Figure":
    """Lower bounds of audits against claimed epsilons, with the line y = x.

    A bound above the line refutes its claim, and is drawn with a ring around it. The
    bar above a bound ends at its ceiling, the most that this audit could have shown: where the
    ceiling is below the line, the audit could not have refuted the claim. Audits of one claim
    stand a little apart; their data are at the claim.

    Args:
        points: name, claimed epsilon and bound of each audit; one name may have several.
        title: above the plot.

    Raises:
        InputError: no audit, or a claim that is not positive and finite (an infinite one cannot be
            refuted, so there is nothing to draw).
    """
    from matplotlib.transforms import offset_copy

    if not points:
        raise InputError("a plot of audits needs at least 1 bound; there is none")
    for name, claimed, _ in points:
        if not (claimed > 0 and math.isfinite(claimed)):
            raise InputError(
                f"the claimed epsilon of {name!r} is {claimed}; a positive, finite one is needed"
            )
    confidence = ", ".join(sorted({f"{100 * bound.confidence:g}%" for _, _, bound in points}))
    names = list(dict.fromkeys(name for name, _, _ in points))
    with style("bounds"):
        figure, axes = new_figure()
        top = _limits(axes, points)
        axes.fill_between([0, top], [0, top], top, color=VIOLATION, alpha=0.06, linewidth=0)
        axes.text(0.03 * top, 0.97 * top, "claim refuted", color=VIOLATION, fontsize=9, va="top")
        for name, look in zip(names, looks(names), strict=True):
            label = literal(name)
            for i, (other, claimed, bound) in enumerate(points):
                if other == name:
                    place = offset_copy(axes.transData, figure, x=_shift(points, i), units="points")
                    _point(axes, claimed, bound, look.light, look.marker, label, place, top)
                    label = ""
        axes.plot([0, top], [0, top], color=INK, linestyle="--", linewidth=1.2, label="y = x")
        axes.plot([], [], color=INK, marker="_", linewidth=1.2, label="up to the ceiling")
        if any(bound.value > claimed for _, claimed, bound in points):
            axes.plot([], [], label="refutes its claim", **_RING)
        axes.set(xlabel="claimed ε", ylabel=f"audited ε, lower bound at {confidence}")
        axes.set_title(literal(title))
        legend_below(figure, axes)
    return figure


def _limits(axes: "Axes", points: Sequence[tuple[str, float, Bound]]) -> float:
    """Both axes from 0 to the largest finite number that is drawn, with some room."""
    numbers = [n for _, claimed, b in points for n in (claimed, b.value, b.ceiling)]
    top = 1.12 * max(n for n in numbers if math.isfinite(n))
    axes.set(xlim=(0, top), ylim=(-0.02 * top, top))
    return top


def _shift(points: Sequence[tuple[str, float, Bound]], index: int) -> float:
    """By how many points an audit is moved aside from the others of the same claim."""
    same = [i for i, point in enumerate(points) if point[1] == points[index][1]]
    return _APART * (same.index(index) - (len(same) - 1) / 2)


def _point(
    axes: "Axes",
    claimed: float,
    bound: Bound,
    colour: str,
    marker: str,
    label: str,
    place: "Transform",
    top: float,
) -> None:
    value, ceiling = min(bound.value, top), min(bound.ceiling, top)
    axes.plot([claimed] * 2, [value, ceiling], color=colour, linewidth=1.2, transform=place)
    cap = "_" if math.isfinite(bound.ceiling) else "^"
    axes.plot([claimed], [ceiling], cap, color=colour, markersize=6, transform=place)
    axes.plot(
        [claimed], [value], color=colour, marker=marker, markersize=7, linestyle="none",
        label=label, transform=place,
    )  # fmt: skip
    if bound.value > claimed:
        axes.plot([claimed], [value], transform=place, gid="violation", **_RING)
