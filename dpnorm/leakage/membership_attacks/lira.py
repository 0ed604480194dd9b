"""The likelihood-ratio attack LiRA, online, of Carlini et al. (arXiv 2112.03570)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register
from dpnorm.leakage.signals import log_odds

Floats = NDArray[np.float64]

_PER_EXAMPLE_FROM = 64
_FLOOR = 1e-6


@register("lira")
def lira(pool: Pool, *, variance: str | None = None) -> Floats:
    """Score = log N(s; mu_in, v_in) - log N(s; mu_out, v_out) of the target's log-odds s.

    mu_in[m, n] is the mean log-odds of record n over the models that saw it, mu_out[m, n] over
    those that did not, both without model m. **No number used for a target in model m comes from
    model m**, fixed variances and gaps included. A target without any shadow on one side (all the
    other models saw the record, or none did) borrows the other side's mean, shifted by the mean
    of mu_in - mu_out over the records that have both.

    Args:
        pool: at least 3 models.
        variance: "fixed": one variance for "in" and one for "out", pooled over the records from
            the deviations around each record's own mean; the views' log-odds are averaged first.
            "per-example": each record's own unbiased variances, each view's ratio apart and then
            averaged. Default: "fixed" below 64 models, where a record has too few shadows for its
            own variance. Variances below 1e-6 are raised to it.

    Returns:
        float64[M, N].

    Raises:
        InputError: fewer than 3 models, no record with shadows on both sides, or "per-example"
            with fewer than 2 shadows on a side.
    """
    if variance is None:
        variance = "per-example" if pool.models >= _PER_EXAMPLE_FROM else "fixed"
    if variance not in ("fixed", "per-example"):
        raise unknown_name("variance", variance, ["fixed", "per-example"])
    if pool.models < 3:
        raise InputError(
            f"LiRA was asked for on a pool of {pool.models} model(s); it needs at least 3: each "
            "is a target with the others as its shadows. The attack 'loss' needs no shadows"
        )
    signal = log_odds(pool)
    if variance == "fixed":
        signal = signal.mean(axis=-1, keepdims=True)
    scores = np.zeros(pool.keep.shape)
    for view in range(signal.shape[-1]):
        scores += _log_ratio(signal[..., view], pool.keep, variance)
    return scores / signal.shape[-1]


def _log_ratio(signal: Floats, keep: NDArray[np.bool_], variance: str) -> Floats:
    values = signal - signal.mean(axis=0)  # changes no deviation; keeps the sums of squares exact
    inside, outside = _Shadows.of(values, keep), _Shadows.of(values, ~keep)
    if variance == "fixed":
        v_in, v_out = _fixed_variances(inside, outside)
    else:
        v_in, v_out = _own_variance(inside, "in"), _own_variance(outside, "out")
    v_in, v_out = np.maximum(v_in, _FLOOR), np.maximum(v_out, _FLOOR)
    mu_in, mu_out = _means(inside, outside)
    ratio: Floats = (values - mu_out) ** 2 / v_out - (values - mu_in) ** 2 / v_in
    return 0.5 * (ratio + np.log(v_out) - np.log(v_in))


@dataclass(frozen=True, eq=False)
class _Shadows:
    """Per target (m, n): the models other than m on one side of record n; each float64[M, N]."""

    count: Floats
    mean: Floats  # 0 where the count is 0
    scatter: Floats  # sum of squared deviations from the mean

    @classmethod
    def of(cls, values: Floats, side: NDArray[np.bool_]) -> "_Shadows":
        here = values * side
        count = side.sum(axis=0) - side.astype(np.float64)
        total = here.sum(axis=0) - here
        squares = (here**2).sum(axis=0) - here**2
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        scatter = np.where(count > 1, np.maximum(squares - total * mean, 0.0), 0.0)
        return cls(count, np.where(count > 0, mean, 0.0), scatter)

    @property
    def freedom(self) -> Floats:
        return np.maximum(self.count - 1, 0.0)


def _means(inside: _Shadows, outside: _Shadows) -> tuple[Floats, Floats]:
    has_in, has_out = inside.count > 0, outside.count > 0
    both = has_in & has_out
    pairs = both.sum(axis=1, keepdims=True)
    if (pairs == 0).any():
        raise InputError(
            "LiRA needs records with a shadow that saw them and one that did not; for "
            f"{int((pairs == 0).sum())} of {len(pairs)} target models no record has both: draw the "
            "membership with draw_membership, or train more models"
        )
    gap = ((inside.mean - outside.mean) * both).sum(axis=1, keepdims=True) / pairs
    return (
        np.where(has_in, inside.mean, outside.mean + gap),
        np.where(has_out, outside.mean, inside.mean - gap),
    )


def _fixed_variances(inside: _Shadows, outside: _Shadows) -> tuple[Floats, Floats]:
    """One variance a side and target model: float64[M, 1]. A side that has none takes the other's.

    (A side has none if no record has two shadows on it.)
    """
    freedom = [side.freedom.sum(axis=1, keepdims=True) for side in (inside, outside)]
    scatter = [side.scatter.sum(axis=1, keepdims=True) for side in (inside, outside)]
    if (freedom[0] + freedom[1] == 0).any():
        raise InputError(
            "LiRA's variance needs a record with two shadows on one side, and this pool has none: "
            "train more models"
        )
    common = (scatter[0] + scatter[1]) / (freedom[0] + freedom[1])
    v_in, v_out = (
        np.divide(s, f, out=common.copy(), where=f > 0)
        for s, f in zip(scatter, freedom, strict=True)
    )
    return v_in, v_out


def _own_variance(side: _Shadows, name: str) -> Floats:
    few = side.count < 2
    if few.any():
        raise InputError(
            f"variance 'per-example' needs at least 2 shadows that are {name} for each target; "
            f"{int(few.sum())} of {few.size} targets have fewer: train more models or take "
            "variance='fixed'"
        )
    return side.scatter / side.freedom
