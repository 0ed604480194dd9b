"""The plots of some pools, written into a folder."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpnorm.figures import save_figure
from dpnorm.files import make_folder
from dpnorm.leakage.course import Course
from dpnorm.leakage.findings import Findings
from dpnorm.leakage.plots.gradient_norms import gradient_norm_figure
from dpnorm.leakage.plots.histograms import histogram_figure
from dpnorm.leakage.plots.memorization import memorization_figure
from dpnorm.leakage.plots.roc import roc_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_plots(
    found: Sequence[Findings], folder: str | Path, *, course: Course | None = None
) -> list[Path]:
    """Draws what there is into SVG files: ROC curves, scores, memorization, gradient norms.

    Args:
        found: of each pool; of several, its name stands before that of its files.
        folder: made if it is not there; files of the same names are replaced.
        course: of the first pool along its training.

    Returns:
        The files, in the order they were drawn.

    Raises:
        StorageError: the folder or a file cannot be written.
    """
    folder = Path(folder)
    make_folder(folder, "-o")
    files: list[Path] = []
    for one in found:
        prefix = f"{_slug(one.name)}-" if len(found) > 1 else ""
        for name, figure in _figures(one, course if one is found[0] else None):
            file = folder / f"{prefix}{_slug(name)}.svg"
            while file in files:  # two names that differ in signs alone
                file = file.with_stem(f"{file.stem}-2")
            save_figure(figure, file)
            files.append(file)
    return files


def _figures(found: Findings, course: Course | None) -> "Iterator[tuple[str, Figure]]":
    yield "roc", roc_figure(found.scores, f"{found.name}: all targets")
    both = found.outliers and all(
        summary.group("outliers").members and summary.group("outliers").others
        for summary in found.summaries.values()
    )
    if both:
        alone = {name: scores.on(scores.outlier) for name, scores in found.scores.items()}
        yield "roc-outliers", roc_figure(alone, f"{found.name}: outliers alone")
    for name, scores in found.scores.items():
        yield f"scores-{name}", histogram_figure(scores, found.name)
    if course is not None and found.outliers:
        yield "memorization", memorization_figure({found.name: course}, "outliers memorized")
    if course is not None and len(course.norms):
        yield "gradient-norms", gradient_norm_figure(course, found.name)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or "pool"
