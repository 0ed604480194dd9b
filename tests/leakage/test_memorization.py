import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, draw_membership, memorization


def planted_pool(seen: float, unseen: float, *, models=8, records=60, outliers=20, seed=0) -> Pool:
    """Outliers get their label with probability `seen` from members and `unseen` from others."""
    generator = np.random.default_rng([61, seed])
    keep = draw_membership(records, models, seed)
    labels = generator.integers(4, size=records)
    outlier = np.arange(records) < outliers
    chance = np.where(outlier, np.where(keep, seen, unseen), 0.9)
    correct = generator.random(keep.shape) < chance
    predicted = np.where(correct, labels, (labels + 1) % 4)
    logits = np.eye(4, dtype=np.float32)[predicted][:, :, None]
    return Pool(keep, logits, labels, outlier, np.zeros(models))


def loop_memorization(pool: Pool) -> np.ndarray:
    values = []
    for n in range(pool.records):
        correct = [
            int(np.argmax(pool.logits[m, n].mean(axis=0))) == pool.labels[n]
            for m in range(pool.models)
        ]
        inside = [c for c, k in zip(correct, pool.keep[:, n], strict=True) if k]
        outside = [c for c, k in zip(correct, pool.keep[:, n], strict=True) if not k]
        values.append(np.mean(inside) - np.mean(outside))
    return np.array(values)


def test_memorization_equals_the_loop():
    pool = planted_pool(0.8, 0.3)
    noisy = np.random.default_rng(1).normal(size=(8, 60, 3, 4)).astype(np.float32)
    for each in (pool, Pool(pool.keep, noisy, pool.labels, pool.outlier, pool.accuracy)):
        result = memorization(each)
        np.testing.assert_allclose(result.values, loop_memorization(each), atol=1e-12)
        assert result.outliers.value == pytest.approx(loop_memorization(each)[pool.outlier].mean())


def test_fully_memorized_outliers_have_share_one_and_unlearned_ones_zero():
    assert memorization(planted_pool(1.0, 0.0)).outliers.value == 1.0
    assert memorization(planted_pool(0.0, 0.0)).outliers.value == 0.0
    assert memorization(planted_pool(1.0, 1.0)).outliers.value == 0.0


def test_the_interval_covers_the_planted_share():
    # The share is 0.8 - 0.1; of 100 intervals at 95% fewer than 88 cover it with probability
    # 0.0015 (seeds are fixed)
    covered = 0
    for seed in range(100):
        share = memorization(planted_pool(0.8, 0.1, seed=seed)).outliers
        assert share.low <= share.value <= share.high
        covered += share.low <= 0.7 <= share.high
    assert covered >= 88


def test_the_interval_is_finite_with_one_outlier_and_two_models():
    share = memorization(planted_pool(1.0, 0.0, models=2, outliers=1)).outliers
    assert (share.low, share.value, share.high) == (1.0, 1.0, 1.0)


def test_pools_without_outliers_or_with_constant_columns_are_refused():
    with pytest.raises(InputError, match="no outliers"):
        _ = memorization(planted_pool(1.0, 0.0, outliers=0)).outliers
    pool = planted_pool(1.0, 0.0)
    keep = pool.keep.copy()
    keep[:, 3] = True
    keep[:, 4] = False
    with pytest.raises(InputError, match="2 of 60 records are in all of the 8"):
        memorization(Pool(keep, pool.logits, pool.labels, pool.outlier, pool.accuracy))
