"""Markdown tables of accuracies."""

from collections.abc import Sequence

import numpy as np


def mean_cell(accuracies: Sequence[float]) -> str:
    """Mean and standard error, in percent."""
    percent = 100 * np.asarray(accuracies)
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{percent.mean():.1f} ± {percent.std(ddof=1) / np.sqrt(len(percent)):.1f}"


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table; the first column is text, the others are numbers."""
    print("| " + " | ".join(titles) + " |")
    print("|---" + "|---:" * (len(titles) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
