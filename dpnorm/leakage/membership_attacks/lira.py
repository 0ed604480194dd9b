"""The likelihood-ratio attack LiRA of Carlini et al. (arXiv 2112.03570), online and offline."""

import numpy as np

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.membership_attacks.shadows import (
    Bools,
    Floats,
    Shadows,
    blocks,
    require_models,
    require_shadows,
)
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register
from dpnorm.leakage.signals import log_odds

_PER_EXAMPLE_FROM = 64
_FLOOR = 1e-6


@register("lira")
def lira(pool: Pool, *, mode: str = "online", variance: str | None = None) -> Floats:
    """How much better the target's log-odds s fit "in" shadows than "out" shadows.

    Online: score = log N(s; mu_in, v_in) - log N(s; mu_out, v_out). mu_in[m, n] is the mean
    log-odds of record n over the models that saw it, mu_out[m, n] over those that did not, both
    without model m. **No number used for a target in model m comes from model m**, fixed
    variances and gaps included. With fixed variance, a target without any shadow on one side (all
    the other models saw the record, or none did) borrows the other side's mean, shifted by the
    mean of mu_in - mu_out over the records that have both.

    Offline: score = (s - mu_out) / sqrt(v_out), from shadows that did not see the record. The
    paper's score is 1 - P[Z > s] for Z ~ N(mu_out, v_out), the same order without its saturation
    at 1: one-sided, as a confidence *below* what non-members have is no sign of a member.

    Args:
        pool: at least 3 models.
        mode: "online" or "offline".
        variance: "fixed": one variance for "in" and one for "out", pooled over the records from
            the deviations around each record's own mean; the views' log-odds are averaged first.
            "per-example": each record's own unbiased variances, each view's score apart and then
            averaged (a spherical Gaussian over the views, as in the paper; for "offline" the
            average is our choice). Default: "fixed" below 64 models, where a record has too few
            shadows for its own variance. Variances below 1e-6 are raised to it.

    Returns:
        float64[M, N].

    Raises:
        InputError: fewer than 3 models; "online" and no record with shadows on both sides;
            "offline" and a target without "out" shadow; or "per-example" with fewer than 2
            shadows on a side that is used.
    """
    if variance is None:
        variance = "per-example" if pool.models >= _PER_EXAMPLE_FROM else "fixed"
    if variance not in ("fixed", "per-example"):
        raise unknown_name("variance", variance, ["fixed", "per-example"])
    if mode not in ("online", "offline"):
        raise unknown_name("mode", mode, ["online", "offline"])
    require_models(pool.models, 3, "LiRA")
    least = 2 if variance == "per-example" else 1
    if mode == "offline" or variance == "per-example":
        require_shadows(~pool.keep, "out of", least, f"{mode} LiRA with {variance} variance")
    if mode == "online" and variance == "per-example":
        require_shadows(pool.keep, "in", least, "online LiRA with per-example variance")
    signal = log_odds(pool)
    if variance == "fixed":
        signal = signal.mean(axis=-1, keepdims=True)
    score = _online if mode == "online" else _offline
    scores = np.zeros(pool.keep.shape)
    for view in range(signal.shape[-1]):
        scores += score(signal[..., view], pool.keep, variance)
    return scores / signal.shape[-1]


def _online(signal: Floats, keep: Bools, variance: str) -> Floats:
    fixed, gap = _pooled(signal, keep) if variance == "fixed" else (None, np.zeros(1))
    scores = np.empty_like(signal)
    for block in blocks(*signal.shape):
        values, side = signal[:, block], keep[:, block]
        inside, outside = Shadows.of(values, side), Shadows.of(values, ~side)
        v_in, v_out = fixed or (inside.scatter / inside.freedom, outside.scatter / outside.freedom)
        v_in, v_out = np.maximum(v_in, _FLOOR), np.maximum(v_out, _FLOOR)
        mu_in = np.where(inside.count > 0, inside.mean, outside.mean + gap)
        mu_out = np.where(outside.count > 0, outside.mean, inside.mean - gap)
        ratio = (values - mu_out) ** 2 / v_out - (values - mu_in) ** 2 / v_in
        scores[:, block] = 0.5 * (ratio + np.log(v_out) - np.log(v_in))
    return scores


def _offline(signal: Floats, keep: Bools, variance: str) -> Floats:
    fixed = _pooled_out(signal, keep) if variance == "fixed" else None
    scores = np.empty_like(signal)
    for block in blocks(*signal.shape):
        values = signal[:, block]
        outside = Shadows.of(values, ~keep[:, block])
        v_out = outside.scatter / outside.freedom if fixed is None else fixed
        scores[:, block] = (values - outside.mean) / np.sqrt(np.maximum(v_out, _FLOOR))
    return scores


def _pooled(signal: Floats, keep: Bools) -> tuple[tuple[Floats, Floats], Floats]:
    """The fixed variances ("in", "out") and the gap of each target model: float64[M, 1] each.

    A side that has no variance (no record has two shadows on it) takes the other's.
    """
    zero = np.zeros((len(signal), 1))
    scatter, freedom = [zero.copy(), zero.copy()], [zero.copy(), zero.copy()]
    gap, pairs = zero.copy(), zero.copy()
    for block in blocks(*signal.shape):
        values, side = signal[:, block], keep[:, block]
        sides = Shadows.of(values, side), Shadows.of(values, ~side)
        for i, shadows in enumerate(sides):
            scatter[i] += shadows.scatter.sum(axis=1, keepdims=True)
            freedom[i] += shadows.freedom.sum(axis=1, keepdims=True)
        both = (sides[0].count > 0) & (sides[1].count > 0)
        gap += ((sides[0].mean - sides[1].mean) * both).sum(axis=1, keepdims=True)
        pairs += both.sum(axis=1, keepdims=True)
    if (pairs == 0).any():
        raise InputError(
            "LiRA needs records with a shadow that saw them and one that did not; for "
            f"{int((pairs == 0).sum())} of {len(pairs)} target models no record has both, of the "
            f"{signal.shape[1]} there are: draw the membership with draw_membership, or train more "
            "models"
        )
    common = _ratio(scatter[0] + scatter[1], freedom[0] + freedom[1], instead=None)
    v_in, v_out = (_ratio(s, f, instead=common) for s, f in zip(scatter, freedom, strict=True))
    return (v_in, v_out), gap / pairs


def _pooled_out(signal: Floats, keep: Bools) -> Floats:
    """The fixed variance "out" of each target model: float64[M, 1]."""
    scatter, freedom = np.zeros((len(signal), 1)), np.zeros((len(signal), 1))
    for block in blocks(*signal.shape):
        outside = Shadows.of(signal[:, block], ~keep[:, block])
        scatter += outside.scatter.sum(axis=1, keepdims=True)
        freedom += outside.freedom.sum(axis=1, keepdims=True)
    return _ratio(scatter, freedom, instead=None)


def _ratio(scatter: Floats, freedom: Floats, *, instead: Floats | None) -> Floats:
    if instead is None and (freedom == 0).any():
        raise InputError(
            "LiRA's variance needs a record with two shadows on one side, and this pool has none: "
            "train more models"
        )
    start = np.zeros_like(scatter) if instead is None else instead.copy()
    return np.divide(scatter, freedom, out=start, where=freedom > 0)
