"""The attacks as a reader of the papers would write them: one target after another.

Each takes a pool of one view and gives float64[M, N], the scores of `dpnorm.leakage.attack` up to
rounding. A target's shadows are looked up for it alone; nothing is shared between targets but what
the paper itself pools over the records.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score

from dpnorm.leakage import Pool

Floats = NDArray[np.float64]


def log_probability(pool: Pool) -> Floats:
    """log p of the label: float64[M, N]."""
    log_p = log_softmax(pool.logits[:, :, 0].astype(np.float64), axis=-1)
    return np.take_along_axis(log_p, pool.labels[None, :, None], axis=-1)[..., 0]


def log_odds(pool: Pool) -> Floats:
    """log p / (1 - p) of the label: float64[M, N]."""
    log_p = log_probability(pool)
    return log_p - np.log1p(-np.exp(log_p))


def sides(values: Floats, pool: Pool, m: int, n: int) -> tuple[Floats, Floats]:
    """The values of the "in" and of the "out" shadows of target (m, n)."""
    others = np.arange(pool.models) != m
    return values[others & pool.keep[:, n], n], values[others & ~pool.keep[:, n], n]


def loss(pool: Pool) -> Floats:
    """Yeom et al., arXiv 1709.01604."""
    signal = log_probability(pool)
    scores = np.empty_like(signal)
    for m, n in np.ndindex(*scores.shape):
        scores[m, n] = signal[m, n]
    return scores


def calibrated(pool: Pool, shadows: str) -> Floats:
    """Watson et al., arXiv 2111.08440."""
    signal = log_probability(pool)
    scores = np.empty_like(signal)
    for m, n in np.ndindex(*scores.shape):
        inside, outside = sides(signal, pool, m, n)
        reference = outside if shadows == "out" else np.concatenate([inside, outside])
        scores[m, n] = signal[m, n] - reference.mean()
    return scores


def lira(pool: Pool, mode: str, variance: str) -> Floats:
    """Carlini et al., arXiv 2112.03570."""
    signal = log_odds(pool)
    scores = np.empty_like(signal)
    for m in range(pool.models):
        shadows = [sides(signal, pool, m, n) for n in range(pool.records)]
        pooled = [_pooled_variance([pair[side] for pair in shadows]) for side in (0, 1)]
        for n, pair in enumerate(shadows):
            own = pooled if variance == "fixed" else [s.var(ddof=1) for s in pair]
            if mode == "offline":
                scores[m, n] = (signal[m, n] - pair[1].mean()) / np.sqrt(own[1])
            else:
                fits = [
                    norm.logpdf(signal[m, n], s.mean(), np.sqrt(v))
                    for s, v in zip(pair, own, strict=True)
                ]
                scores[m, n] = fits[0] - fits[1]
    return scores


def _pooled_variance(shadows: list[Floats]) -> float:
    scatter = sum(((s - s.mean()) ** 2).sum() for s in shadows)
    return scatter / sum(len(s) - 1 for s in shadows)


def rmia(pool: Pool, mode: str, a: float | None = None) -> Floats:
    """Zarifzadeh et al., arXiv 2312.03262, with gamma = 1."""
    p = np.exp(log_probability(pool))
    scores = np.empty_like(p)
    for m in range(pool.models):
        scale = _tuned(p, pool, m) if mode == "offline" and a is None else a
        ratio = np.empty(pool.records)
        for n in range(pool.records):
            inside, outside = sides(p, pool, m, n)
            if mode == "online":
                ratio[n] = p[m, n] / ((inside.mean() + outside.mean()) / 2)
            else:
                ratio[n] = p[m, n] / (((1 + scale) * outside.mean() + 1 - scale) / 2)
        for n in range(pool.records):
            scores[m, n] = (ratio[n] > np.delete(ratio, n)).mean()
    return scores


def _tuned(p: Floats, pool: Pool, m: int) -> float:
    """The a that attacks the paired model best, as `tune_scale` does."""
    pair = m ^ 1 if m ^ 1 < pool.models else m - 1
    rest = np.delete(np.arange(pool.models), [m, pair])
    means = np.array([p[rest[~pool.keep[rest, n]], n].mean() for n in range(pool.records)])
    grid = np.arange(11) / 10
    areas = [roc_auc_score(pool.keep[pair], p[pair] / ((1 + a) * means + 1 - a)) for a in grid]
    return float(grid[np.argmax(areas)])


def bavaria(pool: Pool) -> Floats:
    """The conjugate update of arXiv 2603.11799 with priors by moments."""
    signal = log_odds(pool)
    scores = np.empty_like(signal)
    for m in range(pool.models):
        shadows = [sides(signal, pool, m, n) for n in range(pool.records)]
        priors = [_prior([pair[side] for pair in shadows]) for side in (0, 1)]
        for n, pair in enumerate(shadows):
            fits = [
                _predictive(signal[m, n], s, prior) for s, prior in zip(pair, priors, strict=True)
            ]
            scores[m, n] = fits[0] - fits[1]
    return scores


def _prior(shadows: list[Floats]) -> tuple[float, float, float, float]:
    scatter = np.array([((s - s.mean()) ** 2).sum() for s in shadows])
    sizes = np.array([len(s) for s in shadows])
    freedom = (sizes - 1).sum()
    variance = scatter.sum() / freedom
    square = (scatter**2 / (sizes + 1)).sum() / freedom
    alpha = 2 + 1 / max(square / variance**2 - 1, 1 / 998)
    means = np.array([s.mean() for s in shadows])
    between = means.var() - variance * (1 / sizes).mean()
    return means.mean(), variance / max(between, variance / 1e6), alpha, variance * (alpha - 1)


def _predictive(value: float, shadows: Floats, prior: tuple[float, ...]) -> float:
    location, kappa, alpha, beta = prior
    count, mean = len(shadows), shadows.mean()
    beta += ((shadows - mean) ** 2).sum() / 2
    beta += kappa * count * (mean - location) ** 2 / (2 * (kappa + count))
    location = (kappa * location + count * mean) / (kappa + count)
    kappa, alpha = kappa + count, alpha + count / 2
    return t.logpdf(value, 2 * alpha, location, np.sqrt(beta * (kappa + 1) / (alpha * kappa)))


ATTACKS = {
    "loss": loss,
    "calibrated": calibrated,
    "lira": lira,
    "rmia": rmia,
    "bavaria": bavaria,
}
