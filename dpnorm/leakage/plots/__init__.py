"""Plots of leakage, each a matplotlib Figure that no other code knows.

`dpnorm.figures.save_figure` writes one as SVG, PNG or PDF. Series differ by colour, by marker and
by line style, so that no one of them is needed alone.
"""

from dpnorm.leakage.plots.bounds import bound_figure
from dpnorm.leakage.plots.gradient_norms import gradient_norm_figure
from dpnorm.leakage.plots.histograms import histogram_figure
from dpnorm.leakage.plots.memorization import memorization_figure
from dpnorm.leakage.plots.roc import resolved, roc_figure

__all__ = [
    "roc_figure",
    "histogram_figure",
    "memorization_figure",
    "gradient_norm_figure",
    "bound_figure",
    "resolved",
]
