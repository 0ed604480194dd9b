"""ROC curves on logarithmic axes, where a membership attack is judged."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.figures import INK, LINES, legend_below, literal, looks, new_figure, style
from dpnorm.leakage.scores import MembershipScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def roc_figure(scores: Mapping[str, MembershipScores], title: str = "") -> "Figure":
    """True against false positive rate, both logarithmic, one line a name (Carlini et al.,
    arXiv 2112.03570).

    A line begins at the false positive rate 1/n that its n non-members resolve; a true positive
    rate of 0 has no place on the axis. The diagonal is an attack that guesses.

    Args:
        scores: by what the legend calls them, such as the attack; variants get their own colours.
        title: above the plot.

    Raises:
        InputError: no scores, or more than can be told apart.
    """
    if not scores:
        raise InputError("a ROC plot needs the scores of at least 1 attack; there are none")
    floor, lowest = 1.0, 1.0
    with style("roc"):
        figure, axes = new_figure()
        for i, ((name, one), look) in enumerate(zip(scores.items(), looks([*scores]), strict=True)):
            curve = one.roc()
            fpr, tpr = resolved(curve.fpr, curve.tpr, int((~one.keep).sum()))
            floor = min(floor, float(fpr[0]))
            lowest = min(lowest, float(tpr[tpr > 0].min(initial=1.0)))
            axes.plot(
                fpr, np.where(tpr > 0, tpr, np.nan), color=look.light, marker=look.marker,
                linestyle=LINES[i % len(LINES)], drawstyle="steps-post", linewidth=1.5,
                markevery=(0.02 * i, 0.14), markersize=4.5,
                label=f"{literal(name)}, AUC {one.auc.value:.3f}",
            )  # fmt: skip
        axes.plot(
            [floor, 1],
            [floor, 1],
            color=INK,
            linestyle=(0, (1, 2)),
            linewidth=1.2,
            label="guessing",
        )
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(min(floor, lowest), 1.08))
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title=literal(title))
        legend_below(figure, axes)
    return figure


def resolved(fpr: Floats, tpr: Floats, others: int) -> tuple[Floats, Floats]:
    """The part of a ROC curve that so many non-members can resolve: from an FPR of 1/others on.

    Where no threshold has exactly that FPR, the line begins with the largest TPR below it.

    >>> resolved(np.array([0, 0.05, 0.2, 1]), np.array([0.1, 0.3, 0.6, 1]), others=10)
    (array([0.1, 0.2, 1. ]), array([0.3, 0.6, 1. ]))
    """
    floor = 1 / max(1, others)
    above = fpr > floor
    below = tpr[~above]
    if not len(below):
        return fpr, tpr
    return np.append(floor, fpr[above]), np.append(below.max(), tpr[above])
