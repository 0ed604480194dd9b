"""One outlier among scalar records, in closed form: own influence and spill-over of one step."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError, unknown_name

Floats = NDArray[np.float64]
NORMS = ("none", "batch", "record")


@dataclass(frozen=True, eq=False)
class ScalarBatch:
    """N ordinary scalar records and one outlier, a model of one weight, and squared loss.

    The model is y_hat = w z with z = norm(x), a record's loss is (w z - y)^2 / 2, and its row of
    the gradient g = z (w z - y). The outlier stands at distance d from the mean m of the others,
    x_out = m + d, and the batch has n = N + 1 records. The norms, with eps inside the root:

    - "none": z = x;
    - "batch": z = (x - mean) / sqrt(variance + eps), over the batch, variance biased;
    - "record": z = x / sqrt(x^2 + eps), an RMSNorm of one feature.

    With s^2 and ybar the biased variance of x and the mean of y over the N others, c their
    covariance, and sigma^2 = s^2 N / n + d^2 N / n^2 + eps, "batch" gives (docs/influence.md):

        z_out = d (N / n) / sigma
        own   = z_out (w z_out - y_out)
        spill = w N [(s^2 + d^2 / n^2) / sigma^2 - s^2 / (s^2 + eps)]
                - N [(c - d ybar / n) / sigma - c / sqrt(s^2 + eps)]

    For the other norms spill is 0.

    Attributes:
        x: float64[N], the others; at least 1, and for "batch" not all of them equal if eps is 0.
        y: float64[N], their targets.
        outlier_target: y_out.
        weight: w.
        norm: "none", "batch" or "record".
        eps: 0 or more.

    Raises:
        InputError: other shapes, a number that is not finite, an unknown norm, a negative eps, or
            no variance at all.

    >>> batch = ScalarBatch([-1.0, 1.0, 2.0], [0.0, 0.0, 0.0], outlier_target=0.0, weight=1.0)
    >>> float(batch.own(1e9).round(6)), float(batch.spill(1e9).round(6))  # N w, w - N w
    (3.0, -2.0)
    """

    x: ArrayLike
    y: ArrayLike
    outlier_target: float
    weight: float
    norm: Literal["none", "batch", "record"] = "batch"
    eps: float = 0.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        x, y = (np.asarray(values, dtype=np.float64) for values in (self.x, self.y))
        if x.ndim != 1 or not len(x) or x.shape != y.shape:
            raise InputError(
                f"x has shape {x.shape} and y {y.shape}; (N,) both, with N >= 1, is needed"
            )
        numbers = [self.outlier_target, self.weight, self.eps]
        if not all(np.isfinite(values).all() for values in (x, y, numbers)) or self.eps < 0:
            raise InputError("some number is NaN or infinite, or eps is negative")
        if self.norm == "batch" and not x.var() + self.eps > 0:
            raise InputError(
                "the records are all equal and eps is 0: without the outlier the batch has no "
                "variance to normalize by"
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def outlier_value(self, d: ArrayLike) -> Floats:
        """z_out, the outlier's normalized value at distances d; "batch" stays below sqrt(n - 1)."""
        d = np.asarray(d, dtype=np.float64)
        x, _ = self._records()
        if self.norm == "batch":
            n = len(x) + 1
            return np.asarray(d * (n - 1) / n / self._sigma(d))
        value = x.mean() + d
        return np.asarray(value if self.norm == "none" else self._alone(value))

    def own(self, d: ArrayLike, clip: float | None = None) -> Floats:
        """The outlier's own row of the gradient, at distances d; clipped where `clip` is given."""
        z = self.outlier_value(d)
        return _clipped(z * (self.weight * z - self.outlier_target), clip)

    def spill(self, d: ArrayLike, clip: float | None = None) -> Floats:
        """The sum of what the outlier changes in the rows of the others, at distances d.

        With `clip`, of the clipped rows, which have no shorter form than the sum.
        """
        d = np.asarray(d, dtype=np.float64)
        if self.norm != "batch":
            return np.zeros_like(d)
        if clip is not None:
            after, before = (_clipped(rows, clip) for rows in self._rows(d))
            return np.asarray((after - before).sum(axis=-1))
        x, y = self._records()
        N, n, w = len(x), len(x) + 1, self.weight
        variance, covariance = x.var(), ((x - x.mean()) * (y - y.mean())).mean()
        sigma, before_sigma = self._sigma(d), np.sqrt(variance + self.eps)
        squares = (variance + (d / n) ** 2) / sigma**2 - variance / before_sigma**2
        labels = (covariance - d * y.mean() / n) / sigma - covariance / before_sigma
        return np.asarray(w * N * squares - N * labels)

    def total(self, d: ArrayLike, clip: float | None = None) -> Floats:
        """own + spill: how far the outlier moves the gradient sum, at distances d."""
        return np.asarray(self.own(d, clip) + self.spill(d, clip))

    def neighbour_moves(self, d: ArrayLike) -> Floats:
        """What the outlier changes in the row of each of the others: float64[..., N]."""
        d = np.asarray(d, dtype=np.float64)
        after, before = self._rows(d)
        return np.asarray(after - before)

    def far(self) -> tuple[float, float]:
        """The limits of own and spill as d goes to infinity.

        "batch": own -> N w - sqrt(N) y_out; spill -> w (1 - N r) + sqrt(N) ybar + N c / s0, with
        s0^2 = s^2 + eps and r = s^2 / s0^2. "record": own -> w - y_out. "none": own is infinite
        with the sign of w (of -y_out where w is 0), and 0 where both are.
        """
        x, y = self._records()
        N, w, target = len(x), self.weight, self.outlier_target
        if self.norm == "record":
            return w - target, 0.0
        if self.norm == "none":
            slope = w if w else -target
            return (float(np.sign(slope) * np.inf) if slope else 0.0), 0.0
        s0 = np.sqrt(x.var() + self.eps)
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        spill = w * (1 - N * x.var() / s0**2) + np.sqrt(N) * y.mean() + N * covariance / s0
        return float(N * w - np.sqrt(N) * target), float(spill)

    def _records(self) -> tuple[Floats, Floats]:
        return np.asarray(self.x), np.asarray(self.y)

    def _sigma(self, d: Floats) -> Floats:
        x, _ = self._records()
        N, n = len(x), len(x) + 1
        return np.asarray(np.sqrt(x.var() * N / n + d**2 * N / n**2 + self.eps))

    def _alone(self, x: Floats) -> Floats:
        size = np.sqrt(x**2 + self.eps)
        return np.asarray(x / np.where(size, size, 1.0))

    def _rows(self, d: Floats) -> tuple[Floats, Floats]:
        """The others' rows with the outlier in the batch, (..., N), and without it, (N,)."""
        x, y = self._records()
        if self.norm == "batch":
            apart = x - x.mean()
            before = apart / np.sqrt(x.var() + self.eps)
            after = (apart - d[..., None] / (len(x) + 1)) / self._sigma(d)[..., None]
        else:
            before = x if self.norm == "none" else self._alone(x)
            after = np.broadcast_to(before, (*d.shape, len(x)))
        return after * (self.weight * after - y), before * (self.weight * before - y)


def _clipped(rows: Floats, clip: float | None) -> Floats:
    if clip is None:
        return np.asarray(rows)
    if not clip > 0:
        raise InputError(f"clip is {clip}: a positive number is needed")
    return np.asarray(np.clip(rows, -clip, clip))
