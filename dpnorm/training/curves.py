"""Loss, accuracy and epsilon along a training, as a picture."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from dpnorm.figures import INK, literal, save_figure, style
from dpnorm.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# column of the history, what it is called, by how much it is multiplied, colour
_PANELS = (
    ("loss", "training loss", 1.0, "#0b5fa5"),
    ("accuracy", "test accuracy (%)", 100.0, "#0a8f6a"),
    ("epsilon", "epsilon spent", 1.0, "#c8500a"),
)
_WIDTH, _HEIGHT = 4.0, 3.2  # of a panel, in inches
_LETTERS = 44  # of the title that fit above a panel
_MARKED = 30  # epochs up to which each has a marker


def draw_curves(
    history: History, path: str | Path, *, title: str = "", budget: float | None = None
) -> None:
    """Draws a picture with a panel for each of loss, accuracy and epsilon that the history has.

    Args:
        history: a row an epoch.
        path: of the picture, a .png, .svg or .pdf.
        title: above it.
        budget: the epsilon that the training may spend, as a dashed line.

    Raises:
        StorageError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if panel[0] in history.columns]
    with style("curves"):
        figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT))
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)  # in inches
        lines = textwrap.wrap(title, _LETTERS * len(panels))
        figure.suptitle("\n".join(map(literal, lines)), fontsize=11)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (column, label, scale, colour) in zip(row, panels, strict=True):
            _draw(axes, history, column, scale, colour)
            axes.set(xlabel="epoch", ylabel=label)
            if column == "epsilon":
                _draw_budget(axes, budget)
    save_figure(figure, path)


def _draw(axes: "Axes", history: History, column: str, scale: float, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    points = [(row["epoch"], scale * row[column]) for row in history if column in row]
    marker = "o" if len(points) <= _MARKED else ""
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw_budget(axes: "Axes", budget: float | None) -> None:
    if budget is not None:
        axes.axhline(budget, color=INK, linestyle="--", linewidth=1, label="budget")
        axes.legend(loc="lower right")
    axes.set_ylim(bottom=0, top=1.05 * max(axes.get_ylim()[1], budget or 0))
