"""RMIA against a plain loop written from arXiv 2312.03262."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, attack
from dpnorm.leakage.membership_attacks.rmia_scale import tune_scale
from tests.leakage.attack_pools import gaussian_pool, shadow_lists


def probabilities(pool: Pool) -> np.ndarray:
    p = softmax(pool.logits.astype(np.float64), axis=-1)
    return np.stack([p[:, n, :, pool.labels[n]].mean(axis=1) for n in range(pool.records)], axis=1)


def loop_rmia(pool: Pool, mode: str, gamma: float, a: float) -> np.ndarray:
    """One pair (x, z) at a time: the share of z with ratio_x / ratio_z > gamma."""
    p = probabilities(pool)
    scores = np.empty(pool.keep.shape)
    for m in range(pool.models):
        ratio = np.empty(pool.records)
        for n in range(pool.records):
            inside, outside = shadow_lists(p, pool.keep, m, n)
            if mode == "online":
                average = (np.mean(inside) + np.mean(outside)) / 2
            else:
                average = ((1 + a) * np.mean(outside) + (1 - a)) / 2
            ratio[n] = p[m, n] / average
        for x in range(pool.records):
            others = [z for z in range(pool.records) if z != x]
            scores[m, x] = np.mean([ratio[x] / ratio[z] > gamma for z in others])
    return scores


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_online_rmia_equals_the_loop(gamma, views):
    pool = gaussian_pool(models=16, records=40, views=views, shift=1.0)
    scores = attack(pool, "rmia", mode="online", gamma=gamma).scores
    np.testing.assert_allclose(scores, loop_rmia(pool, "online", gamma, 0.0), atol=1e-12)


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_offline_rmia_equals_the_loop(gamma, a):
    pool = gaussian_pool(models=16, records=40, shift=1.0)
    scores = attack(pool, "rmia", mode="offline", gamma=gamma, a=a).scores
    np.testing.assert_allclose(scores, loop_rmia(pool, "offline", gamma, a), atol=1e-12)


def test_ties_are_not_dominated():
    pool = gaussian_pool(models=20, records=10, noise=0.0)  # each ratio is 1 up to rounding
    scores = attack(pool, "rmia", gamma=1.001).scores
    assert (scores == 0).all()


@pytest.mark.parametrize("models", [10, 11])
def test_the_scale_is_the_one_that_attacks_the_paired_model_best(models):
    pool = gaussian_pool(models=models, records=300, shift=1.5, seed=1)
    p = probabilities(pool)
    scale = tune_scale(p, pool.keep)
    for m in range(models):
        pair = m + 1 if m % 2 == 0 else m - 1
        pair = m - 1 if pair == models else pair
        rest = [k for k in range(models) if k not in (m, pair)]
        areas = []
        for a in np.arange(11) / 10:
            ratio, member = [], []
            for n in range(pool.records):
                outside = [p[k, n] for k in rest if not pool.keep[k, n]]
                if outside:
                    ratio.append(p[pair, n] / ((1 + a) * np.mean(outside) + (1 - a)))
                    member.append(pool.keep[pair, n])
            areas.append(roc_auc_score(member, ratio))
        assert areas[round(10 * scale[m])] == pytest.approx(max(areas))
    assert len(set(scale)) > 1


def test_without_a_given_offline_rmia_takes_the_tuned_one():
    pool = gaussian_pool(models=16, records=60, shift=1.0)
    tuned = tune_scale(probabilities(pool), pool.keep)
    scores = attack(pool, "rmia", mode="offline").scores
    for m, a in enumerate(tuned):
        given = attack(pool, "rmia", mode="offline", a=float(a)).scores
        assert np.array_equal(scores[m], given[m])


@pytest.mark.parametrize(
    "options", [{"mode": "online"}, {"mode": "offline", "a": 1.0}, {"mode": "offline"}]
)
def test_rmia_reaches_the_closed_form_auc_of_a_known_separation(options):
    # At log-odds s around -30, p = exp(s) and p(x) is a constant a record, so the ratio's order is
    # that of N(member, 1): AUC = Phi(1 / sqrt 2) = 0.760. The shadows' mean of log-normals
    # adds a variance of (e - 1) / 64 = 0.027 to it, hence 0.757 (a little more spread online, where
    # the "in" mean weighs most); 0.015 holds that and 4 standard errors of 128 * 200 targets.
    pool = gaussian_pool(models=128, records=200, shift=1.0, level=-30.0)
    expected = norm.cdf(1 / np.sqrt(2 * (1 + (np.e - 1) / 64)))
    assert attack(pool, "rmia", **options).auc.value == pytest.approx(expected, abs=0.015)


def test_options_out_of_range_are_refused():
    pool = gaussian_pool(models=16, records=20)
    for gamma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="gamma is"):
            attack(pool, "rmia", gamma=gamma)
    for a in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"a is .* from 0 to 1"):
            attack(pool, "rmia", mode="offline", a=a)
    with pytest.raises(InputError, match=r"a = 0.3 was given with mode 'online'"):
        attack(pool, "rmia", a=0.3)
    keep = pool.keep.copy()
    keep[5] = True
    with pytest.raises(InputError, match=r"cannot be tuned for model 4.*its paired model 5 saw 20"):
        tune_scale(np.ones(keep.shape), keep)
