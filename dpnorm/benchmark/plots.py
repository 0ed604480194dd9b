"""The plots of a report."""

from collections.abc import Callable, Iterator

from dpnorm.benchmark import (
    report_audits,
    report_bars,
    report_course,
    report_roc,
    report_tradeoff,
)
from dpnorm.benchmark.report_series import Plot, Subject, subjects
from dpnorm.benchmark.results import BenchmarkResult

PLOTTERS: tuple[Callable[[Subject], Iterator[Plot]], ...] = (
    report_tradeoff.accuracy,
    report_tradeoff.leakage,
    report_roc.roc,
    report_bars.memorization,
    report_course.course,
    report_course.norms,
    report_audits.audits,
    report_bars.cost,
)


def plots(result: BenchmarkResult) -> dict[str, Plot]:
    """Draws every plot that the rows have data for, by its key.

    Where the run has several datasets or models there is one of each a pair, with
    `-DATASET-MODEL` at the end of the key.
    """
    drawn = (
        plot for subject in subjects(result) for plotter in PLOTTERS for plot in plotter(subject)
    )
    return {plot.key: plot for plot in drawn}
