"""How large the gradients of outliers are beside those of the other records."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.figures import INK, legend_below, literal, new_figure, style
from dpnorm.leakage.course import Course

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDINARY, OUTLIERS = "#0b5fa5", "#c8500a"
_EPOCHS = 8  # at most so many violins side by side
_WIDTH = 0.36  # of a violin, where neighbouring epochs are 1 apart
_GRID = 120


def gradient_norm_figure(course: Course, title: str = "") -> "Figure":
    """Violins of the records' gradient norms before clipping, over epochs, outliers apart.

    A violin is the density of log10 of the norm (a Gaussian kernel, Scott's bandwidth), over the
    records that each watched member was trained on; the marker is the median. At most 8 of the
    watched epochs are drawn, spread evenly. Where the training was private, a line marks the
    clipping norm: what lies above it was scaled down to it.

    Args:
        course: with norms of at least one member.
        title: above the plot.

    Raises:
        InputError: the norms were not watched.
    """
    if not len(course.norms):
        raise InputError(
            "the gradient norms of this pool were not watched: train it with watch_norms=1 or more"
        )
    chosen = np.unique(np.linspace(0, len(course.epochs) - 1, _EPOCHS).round().astype(int))
    groups = [("ordinary records", ~course.outlier, ORDINARY, "o"),
              ("outliers", course.outlier, OUTLIERS, "X")]  # fmt: skip
    groups = [group for group in groups if group[1].any()]
    with style("gradient-norms"):
        figure, axes = new_figure(6.0, 4.2)
        for i, (label, mask, colour, marker) in enumerate(groups):
            places, medians = [], []
            for place, epoch in enumerate(chosen):
                norms = _norms(course, int(epoch), mask)
                if norms.size:
                    at = place + (i - (len(groups) - 1) / 2) * 1.15 * _WIDTH
                    _violin(axes, norms, at, colour, hatch="////" if i else "")
                    places.append(at)
                    medians.append(float(np.median(norms)))
            axes.plot(
                places, medians, color=colour, marker=marker, markersize=5, linewidth=0.9,
                linestyle=":", markeredgecolor="white", markeredgewidth=0.6,
                label=f"{label} (median)",
            )  # fmt: skip
        if course.clip is not None:
            label = f"clipping norm {course.clip:g}"
            axes.axhline(course.clip, color=INK, linestyle="--", linewidth=1.2, label=label)
        axes.set_xticks(range(len(chosen)), [str(course.epochs[epoch]) for epoch in chosen])
        axes.grid(visible=False, axis="x")
        axes.set(yscale="log", xlabel="epoch", ylabel="gradient norm before clipping")
        axes.set_title(literal(title))
        legend_below(figure, axes)
    return figure


def _norms(course: Course, epoch: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The finite, positive norms of some records, over the members trained on each."""
    trained = course.keep[: len(course.norms)] & mask
    norms = course.norms[:, epoch][trained].astype(np.float64)
    return norms[np.isfinite(norms) & (norms > 0)]


def _violin(axes: "Axes", norms: NDArray[np.float64], at: float, colour: str, hatch: str) -> None:
    from scipy.stats import gaussian_kde

    logs = np.log10(norms)
    if logs.size < 2 or not np.ptp(logs) > 1e-9:  # no density: a dash where all of them are
        axes.hlines(norms[:1], at - _WIDTH / 2, at + _WIDTH / 2, color=colour)
        return
    grid = np.linspace(logs.min(), logs.max(), _GRID)
    density = gaussian_kde(logs)(grid)
    half = _WIDTH / 2 * density / density.max()
    axes.fill_betweenx(10**grid, at - half, at + half, facecolor=colour, alpha=0.25, linewidth=0)
    axes.fill_betweenx(
        10**grid, at - half, at + half, facecolor="none", edgecolor=colour, linewidth=0.9,
        hatch=hatch,
    )  # fmt: skip
