"""Plots that more than one topic draws. All are called inside `dpnorm.figures.style`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dpnorm.explain.explanation import shown
from dpnorm.figures import INK, Look, legend_below, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BROKEN, KEPT = look("batch"), look("group")  # a bound, in every plot of whether it is


def record_movements(shares: Mapping[str, tuple[Look, Tensor]]) -> "Figure":
    """By how much each record's gradient moves when another record comes.

    Args:
        shares: by what the legend calls it: a look, and the movements, (records,), in parts of
            each gradient's length.
    """
    figure, axes = new_figure()
    for name, (one, share) in shares.items():
        axes.plot(100 * share, one.marker, color=one.light, label=name)
    axes.set_xlabel("record of the smaller dataset")
    axes.set_ylabel("movement of its gradient (% of its length)")
    axes.set_title("One record more")
    legend_below(figure, axes)
    return figure


def epsilon_bars(
    epsilons: Mapping[str, float],
    kinds: Mapping[str, tuple[str, Look]],
    claimed: tuple[str, float],
    delta: float,
) -> "Figure":
    """The exact epsilon of one step on a pair of datasets in several cases, and the claimed one.

    Args:
        epsilons: by case; infinite where there is none, which is drawn as a bar without an end.
        kinds: what the legend says of each case, and how it is drawn.
        claimed: what the legend says of the epsilon that is claimed in all cases, and its value.
        delta: of all of them.
    """
    words, line = claimed
    finite = [one for one in epsilons.values() if math.isfinite(one)]
    edge = 1.18 * max([line, *finite])
    figure, axes = new_figure(6.4, 1.9 + 0.36 * len(epsilons))
    named = set()
    for row, (case, epsilon) in enumerate(epsilons.items()):
        kind, one = kinds[case]
        label = kind if kind not in named else ""
        named.add(kind)
        axes.barh(row, min(epsilon, edge), 0.62, color=one.light, label=label)
        if math.isinf(epsilon):
            axes.annotate(
                "no finite epsilon", (0.97, row), xycoords=("axes fraction", "data"),
                color="white", fontsize=9, ha="right", va="center_baseline",
            )  # fmt: skip
            axes.plot(
                [1.0], [row], ">", color=one.light, markersize=12, clip_on=False,
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        else:
            _value(axes, shown(epsilon), (epsilon, row), (4, 0), ha="left", va="center_baseline")
    axes.axvline(line, color=INK, linestyle="--", label=f"{words}: {shown(line)}")
    axes.set_yticks(range(len(epsilons)), [*epsilons])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, edge)
    axes.set_xlabel(f"exact epsilon of one step (delta = {delta:g})")
    figure.suptitle("Two datasets that differ in one record")
    legend_below(figure, axes)
    return figure


def grouped_bars(
    axes: "Axes", groups: Sequence[str], series: Mapping[str, tuple[Look, Sequence[float | None]]]
) -> None:
    """Bars with their values above them.

    Args:
        axes: to draw on.
        groups: what stands side by side, (groups,).
        series: by what the legend calls it: its look, and a value a group or None for no bar.
    """
    width = 0.84 / len(series)
    for name, (one, _) in series.items():
        axes.bar([0], [0], color=one.light, label=name)  # for the legend, in this order
    for group in range(len(groups)):
        bars = [(one, v) for one, values in series.values() if (v := values[group]) is not None]
        for i, (one, value) in enumerate(bars):
            at = group + (i - (len(bars) - 1) / 2) * width
            axes.bar([at], [value], 0.9 * width, color=one.light)
            _value(axes, shown(value), (at, value), (0, 2), ha="center", va="bottom")
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.1)


def _value(
    axes: "Axes", text: str, at: tuple[float, float], points: tuple[int, int], ha: str, va: str
) -> None:
    axes.annotate(text, at, points, textcoords="offset points", ha=ha, va=va, fontsize=9)
