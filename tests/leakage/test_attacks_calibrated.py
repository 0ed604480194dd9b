"""The calibrated loss against a plain loop written from arXiv 2111.08440."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from dpnorm.leakage import Pool, attack
from tests.leakage.attack_pools import gaussian_pool, shadow_lists


def loop_calibrated(pool: Pool, shadows: str) -> np.ndarray:
    """s(h, z) minus the average of s(g, z) over the reference models g; s = -loss."""
    log_p = log_softmax(pool.logits.astype(np.float64), axis=-1)
    records = range(pool.records)
    signal = np.stack([log_p[:, n, :, pool.labels[n]].mean(axis=1) for n in records], axis=1)
    scores = np.empty(pool.keep.shape)
    for m in range(pool.models):
        for n in records:
            inside, outside = shadow_lists(signal, pool.keep, m, n)
            scores[m, n] = signal[m, n] - np.mean(outside if shadows == "out" else inside + outside)
    return scores


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("shadows", ["all", "out"])
def test_calibrated_loss_equals_the_loop(shadows, views):
    pool = gaussian_pool(models=16, records=30, views=views, shift=1.0)
    scores = attack(pool, "calibrated", shadows=shadows).scores
    np.testing.assert_allclose(scores, loop_calibrated(pool, shadows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shadows", ["all", "out"])
def test_calibrated_loss_reaches_the_closed_form_auc_of_a_known_separation(shadows):
    # At log-odds around -30 the loss is minus the log-odds to 1e-8, so a score is N(member, v):
    # v = 1 + E[1 / n_out] ("out"), or 1 + 1/63 and the spread of the "in" shadows' share,
    # 1 / (4 * 63) ("all"). 4 standard errors of an AUC on 64 * 400 targets are below 0.015.
    pool = gaussian_pool(models=64, records=400, shift=1.0, level=-30.0)
    outside = (~pool.keep).sum(axis=0) - ~pool.keep
    spread = {"out": (1 / outside).mean(), "all": 1 / 63 + 1 / (4 * 63)}[shadows]
    expected = norm.cdf(1 / np.sqrt(2 * (1 + spread)))
    auc = attack(pool, "calibrated", shadows=shadows).auc.value
    assert auc == pytest.approx(expected, abs=0.015)


def test_calibration_takes_the_difficulty_of_a_record_out_of_the_loss():
    pool = gaussian_pool(models=16, records=300, shift=1.0, level=-30.0)
    assert attack(pool, "calibrated").auc.low > attack(pool, "loss").auc.high


def test_the_smallest_pool_has_one_shadow_a_target():
    pool = gaussian_pool(models=2, records=20, shift=1.0)
    scores = attack(pool, "calibrated").scores
    np.testing.assert_allclose(scores[0], -scores[1], atol=1e-12)
