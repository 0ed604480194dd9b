"""Intervals that know that both the models and the records are a sample."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.leakage.estimate import Estimate

REPLICATES = 400
CONFIDENCE = 0.95
_SEED = 20080
_BATCH = 64

Weights = NDArray[np.float64]


def two_way(
    statistic: Callable[[Weights, Weights], float],
    models: int,
    records: int,
) -> Estimate:
    """Resamples models and records, each with replacement and independently of the other.

    A replicate gives target (m, n) the weight w_m * w_n, where w_m and w_n count how often the
    model and the record were drawn (Owen, "The pigeonhole bootstrap", 2007). The interval
    holds the middle 95% of 400 replicates (a fixed seed: the same pool, the same
    interval) and is widened, where needed, to contain the value.

    What to expect of it, for the AUC on simulated scores (tests/leakage/test_scores.py): where
    leakage varies from record to record, 95% intervals cover the truth 96 to 97% of the time;
    where it varies from model to model, 92 to 93% with 8 to 16 models (any percentile interval of
    so few is a little narrow); where it is the same for all targets, 99% and more, as their own
    noise is then counted up to three times (intervals up to sqrt(3) too wide, on the safe side).
    A statistic at its bound (AUC 1) gets an interval of no width: no replicate could tell it from
    the bound. With one model the interval speaks of the records only.

    Args:
        statistic: (w_models float64[M], w_records float64[N]) -> value; NaN where a replicate
            does not define it, which leaves that replicate out.
        models: M.
        records: N.
    """
    value = float(statistic(np.ones(models), np.ones(records)))
    return _estimate(value, [statistic(*weights) for weights in _draws(models, records)])


def two_way_at_once(
    statistics: Callable[[Weights, Weights], Weights], models: int, records: int
) -> list[Estimate]:
    """The same estimates as from `two_way`, of several statistics and many replicates a call.

    Args:
        statistics: (float64[B, M], float64[B, N]) -> float64[B, S], B weightings a call.
        models: M.
        records: N.

    Returns:
        S estimates.
    """
    values = statistics(np.ones((1, models)), np.ones((1, records)))[0]
    draws = _draws(models, records)
    batches = [
        statistics(*map(np.stack, zip(*itertools.islice(draws, size), strict=True)))
        for size in _batches()
    ]
    columns = np.concatenate(batches).T
    return [_estimate(float(v), column) for v, column in zip(values, columns, strict=True)]


def _batches() -> list[int]:
    whole, rest = divmod(REPLICATES, _BATCH)
    return [_BATCH] * whole + [rest] * (rest > 0)


def _draws(models: int, records: int) -> Iterator[tuple[Weights, Weights]]:
    """The weights of each replicate, the same ones at each call."""
    generator = np.random.default_rng(_SEED)
    for _ in range(REPLICATES):
        yield _counts(generator, models), _counts(generator, records)


def _estimate(value: float, replicates: ArrayLike) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(np.append(replicates, value), [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value), CONFIDENCE)


def _counts(generator: np.random.Generator, size: int) -> Weights:
    drawn = generator.integers(size, size=size)
    return np.bincount(drawn, minlength=size).astype(np.float64)
