"""How an attack's scores of members and of non-members overlap."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpnorm.figures import legend_below, literal, style
from dpnorm.leakage.scores import MembershipScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN, OUT = "#c8500a", "#0b5fa5"
_BINS, _TAIL = 60, 0.002


def histogram_figure(scores: MembershipScores, title: str = "") -> "Figure":
    """Histograms of the scores of members (in) and of non-members (out), outliers apart.

    Targets (model, record) are counted, on a logarithmic axis, since what a threshold at a low
    false positive rate finds is in the tail. The outermost bins hold all that lies further out, so
    that the counts sum to the number of targets.

    Args:
        scores: of one attack.
        title: above the plot.
    """
    from matplotlib.figure import Figure

    edges = _edges(scores)
    margin = 0.02 * (edges[-1] - edges[0])
    groups = [("ordinary records", ~scores.outlier), ("outliers", scores.outlier)]
    shown = [(name, mask) for name, mask in groups if mask.any()]
    if len(shown) == 1:
        shown = [("", shown[0][1])]
    with style("histogram"):
        figure = Figure(figsize=(5.2, 2.2 + 1.9 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, mask) in zip(panels, shown, strict=True):
            _draw(axes, scores.scores[:, mask], scores.keep[:, mask], edges)
            axes.set(ylabel="targets", xlim=(edges[0] - margin, edges[-1] + margin))
            axes.set_title(name, loc="left", fontsize=10)
        panels[-1].set_xlabel(
            f"score of the attack {literal(scores.attack)} (higher: member);\n"
            "the outermost bins hold all beyond"
        )
        if title:
            figure.suptitle(literal(title), fontsize=11)
        legend_below(figure, panels[0])
    return figure


def _edges(scores: MembershipScores) -> NDArray[np.float64]:
    """Bins for the middle of each group's scores: a far tail must not squeeze all the others."""
    parts = [
        scores.scores[:, mask][scores.keep[:, mask] == kept]
        for mask in (scores.outlier, ~scores.outlier)
        for kept in (True, False)
    ]
    ends = np.array([np.quantile(part, [_TAIL, 1 - _TAIL]) for part in parts if part.size])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _draw(
    axes: "Axes",
    scores: NDArray[np.float64],
    keep: NDArray[np.bool_],
    edges: NDArray[np.float64],
) -> None:
    highest = 1
    for kept, label, colour, line in (
        (False, "non-members (out)", OUT, "--"),
        (True, "members (in)", IN, "-"),
    ):
        inside = np.clip(scores[keep == kept], edges[0], edges[-1])
        counts, _ = np.histogram(inside, edges)
        highest = max(highest, int(counts.max()))
        axes.stairs(
            counts, edges, baseline=0.5, fill=True, facecolor=colour, alpha=0.18, edgecolor="none"
        )
        axes.stairs(
            counts, edges, baseline=0.5, color=colour, linestyle=line, linewidth=1.5, label=label
        )
    axes.set(yscale="log", ylim=(0.5, 1.6 * highest))
