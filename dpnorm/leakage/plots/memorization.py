"""How fast outliers are memorized."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dpnorm.errors import InputError
from dpnorm.figures import INK, LINES, legend_below, literal, looks, new_figure, style
from dpnorm.leakage.course import Course

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKED = 12  # epochs up to which each has a marker


def memorization_figure(courses: Mapping[str, Course], title: str = "") -> "Figure":
    """The share of outliers memorized after each watched epoch, one line a name.

    The values of `Course.memorized` (Feldman and Zhang, arXiv 2008.03703) in percent; the bands
    are their 95% intervals, which resample models and outliers.

    Args:
        courses: by what the legend calls them; variants get their own colours.
        title: above the plot.

    Raises:
        InputError: no course, one without outliers or one whose memorization is not defined.
    """
    from matplotlib.ticker import MaxNLocator

    if not courses:
        raise InputError("a plot of memorization needs at least 1 course; there is none")
    values = {name: course.memorized() for name, course in courses.items()}
    with style("memorization"):
        figure, axes = new_figure()
        for i, (name, look) in enumerate(zip(courses, looks([*courses]), strict=True)):
            epochs = courses[name].epochs
            low = [100 * share.low for share in values[name]]
            high = [100 * share.high for share in values[name]]
            axes.fill_between(epochs, low, high, color=look.light, alpha=0.14, linewidth=0)
            axes.plot(
                epochs, [100 * share.value for share in values[name]], color=look.light,
                linestyle=LINES[i % len(LINES)], marker=look.marker, markersize=5,
                markevery=max(1, len(epochs) // _MARKED), label=literal(name),
            )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(min(0, axes.get_ylim()[0]), 103)
        axes.set(xlabel="epoch", ylabel="outliers memorized (%), 95% bands", title=literal(title))
        legend_below(figure, axes)
    return figure
