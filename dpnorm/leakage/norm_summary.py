"""Gradient norms of outliers beside those of the other records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from dpnorm.errors import InputError
from dpnorm.leakage.bootstrap import CONFIDENCE, REPLICATES
from dpnorm.leakage.estimate import Estimate

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_SEED = 20081


@dataclass(frozen=True)
class NormGroup:
    """The gradient norms of some records.

    Attributes:
        records: how many, at least 1.
        mean: of their norms.
        quantiles: by their share, of `QUANTILES`; 0.5 is the median.
        clipped: the share whose norm is above the clipping norm, with its Clopper-Pearson
            interval (the records as independent draws); None without a clipping norm.
    """

    records: int
    mean: float
    quantiles: Mapping[float, float]
    clipped: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "records": self.records,
            "mean": self.mean,
            "quantiles": {f"{share:g}": value for share, value in self.quantiles.items()},
            "clipped": _plain(self.clipped),
        }


@dataclass(frozen=True)
class NormSummary:
    """How much harder outliers pull than the rest.

    Attributes:
        outliers: None where there are none.
        rest: None where all records are outliers.
        ratio: the outliers' median over the rest's; its interval resamples the records of both
            groups (percentile bootstrap). None where a group is missing or the rest's median is 0.
        clip: the clipping norm that shares are of, or None.
    """

    outliers: NormGroup | None
    rest: NormGroup | None
    ratio: Estimate | None
    clip: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "outliers": None if self.outliers is None else self.outliers.to_dict(),
            "rest": None if self.rest is None else self.rest.to_dict(),
            "ratio": _plain(self.ratio),
            "clip": self.clip,
        }

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        header = "".join(f"{100 * share:g}%".rjust(10) for share in QUANTILES)
        lines = ["gradient norms before clipping", f"{'':10}{'records':>8}{'mean':>10}{header}"]
        for name, group in self._groups():
            values = "".join(f"{value:10.4g}" for value in group.quantiles.values())
            lines.append(f"{name:10}{group.records:8d}{group.mean:10.4g}{values}")
        if self.ratio is not None:
            lines.append(f"median of outliers / median of the rest: {self.ratio}")
        for name, group in self._groups():
            if group.clipped is not None:
                lines.append(f"share above clip {self.clip:g}, {name}: {group.clipped}")
        if self.ratio is not None or self.clip is not None:
            lines.append(f"[low, high]: {100 * CONFIDENCE:g}% over records")
        return "\n".join(lines)

    def _groups(self) -> list[tuple[str, NormGroup]]:
        named = (("outliers", self.outliers), ("rest", self.rest))
        return [(name, group) for name, group in named if group is not None]


def summarize_norms(norms: Any, outlier: ArrayLike, clip: float | None = None) -> NormSummary:
    """Compares the gradient norms of outliers with those of the rest.

    Args:
        norms: float[N], as `gradient_norms` gives them: a tensor or an array.
        outlier: bool[N], such as `data.train.outlier`.
        clip: the clipping norm of DP-SGD, to say what share of the records it cuts.

    Raises:
        InputError: shapes or dtypes that do not fit, no record, a norm that is negative or not
            finite, or a clipping norm that is not positive.

    >>> print(summarize_norms([4.0, 1.0, 2.0, 3.0], [True, False, False, False]).ratio.value)
    2.0
    """
    values, mask = np.asarray(norms, dtype=np.float64), np.asarray(outlier)
    if values.ndim != 1 or not len(values) or mask.shape != values.shape or mask.dtype != np.bool_:
        raise InputError(
            f"norms have shape {values.shape}, outlier is {mask.dtype}{list(mask.shape)}; float[N] "
            "and bool[N] with at least one record are needed"
        )
    if not (np.isfinite(values).all() and values.min() >= 0):
        raise InputError("some norms are negative, NaN or infinite; gradient norms are needed")
    if clip is not None and not 0 < clip < np.inf:
        raise InputError(f"clip is {clip}: a positive number is needed")
    unusual, usual = values[mask], values[~mask]
    return NormSummary(
        outliers=_group(unusual, clip),
        rest=_group(usual, clip),
        ratio=_ratio(unusual, usual),
        clip=None if clip is None else float(clip),
    )


def _group(norms: NDArray[np.float64], clip: float | None) -> NormGroup | None:
    if not len(norms):
        return None
    quantiles = dict(zip(QUANTILES, np.quantile(norms, QUANTILES).tolist(), strict=True))
    clipped = None if clip is None else _share(int((norms > clip).sum()), len(norms))
    return NormGroup(len(norms), float(norms.mean()), quantiles, clipped)


def _share(hits: int, trials: int) -> Estimate:
    """A share with its two-sided Clopper-Pearson interval."""
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return Estimate(hits / trials, low, high, CONFIDENCE)


def _ratio(unusual: NDArray[np.float64], usual: NDArray[np.float64]) -> Estimate | None:
    if not len(unusual) or not len(usual) or not np.median(usual):
        return None
    value = float(np.median(unusual) / np.median(usual))
    generator = np.random.default_rng(_SEED)
    replicates = []
    for _ in range(REPLICATES):
        above, below = (
            np.median(generator.choice(group, len(group))) for group in (unusual, usual)
        )
        replicates.append(above / below if below else np.inf)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], method="inverted_cdf")
    return Estimate(value, min(float(low), value), max(float(high), value), CONFIDENCE)


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
    }
