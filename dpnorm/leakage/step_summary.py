"""The influence of outliers on a training step, beside that of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLUMNS = {"own": "own", "spill": "spill-over", "total": "total", "largest": "neighbour"}


@dataclass(frozen=True)
class StepGroup:
    """Movements of some of the probed records.

    Attributes:
        records: how many, at least 1.
        median: by part: "own", "spill", "total", "largest".
        maximum: likewise.
    """

    records: int
    median: Mapping[str, float]
    maximum: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "records": self.records,
            "median": dict(self.median),
            "maximum": dict(self.maximum),
        }


@dataclass(frozen=True)
class StepSummary:
    """What leaving out an outlier changes in a step, and what leaving out another record does.

    Attributes:
        batch: the records in the batch.
        clip: the norm that gradients were clipped to, or None.
        outliers: None where none was probed.
        rest: None where nothing else was probed.
    """

    batch: int
    clip: float | None
    outliers: StepGroup | None
    rest: StepGroup | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "batch": self.batch,
            "clip": self.clip,
            "outliers": None if self.outliers is None else self.outliers.to_dict(),
            "rest": None if self.rest is None else self.rest.to_dict(),
        }

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        how = "not clipped" if self.clip is None else f"clipped to {self.clip:g}"
        lines = [
            f"leaving one record out of a batch of {self.batch}, gradients {how}",
            f"{'':10}{'records':>8}{'':>9}" + "".join(f"{c:>12}" for c in _COLUMNS.values()),
        ]
        shown = [("outliers", self.outliers), ("rest", self.rest)]
        if self.outliers is None:
            shown = [("records", self.rest)]
        for name, group in shown:
            if group is None:
                continue
            for which, values in (("median", group.median), ("maximum", group.maximum)):
                first = f"{name:10}{group.records:8d}" if which == "median" else " " * 18
                cells = "".join(f"{values[part]:12.4g}" for part in _COLUMNS)
                lines.append(f"{first}{which:>9}{cells}")
        lines.append("neighbour: the largest movement of a single other record's gradient")
        if self.clip is not None:
            lines.append(f"DP-SGD's noise is made for a total of at most {self.clip:g}")
        return "\n".join(lines)


def summarize_steps(
    parts: Mapping[str, NDArray[np.float64]],
    outlier: NDArray[np.bool_],
    batch: int,
    clip: float | None,
) -> StepSummary:
    """Medians and maxima of the movements, outliers and the rest apart.

    Args:
        parts: float64[R] each, by "own", "spill", "total" and "largest".
        outlier: bool[R].
        batch: the records in the batch.
        clip: the norm that gradients were clipped to, or None.
    """
    return StepSummary(batch, clip, _group(parts, outlier), _group(parts, ~outlier))


def _group(parts: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]) -> StepGroup | None:
    if not mask.any():
        return None
    return StepGroup(
        records=int(mask.sum()),
        median={part: float(np.median(parts[part][mask])) for part in _COLUMNS},
        maximum={part: float(parts[part][mask].max()) for part in _COLUMNS},
    )
