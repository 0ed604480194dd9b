"""LiRA against plain loops written from arXiv 2112.03570."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from dpnorm.leakage import Pool, attack
from tests.leakage.attack_pools import gaussian_pool


def loop_lira(pool: Pool, variance: str, mode: str = "online") -> np.ndarray:
    """Sections IV to VI of arXiv 2112.03570, one target at a time, its own model dropped."""
    models, records = pool.keep.shape
    log_p = log_softmax(pool.logits.astype(np.float64), axis=-1)
    phi = np.empty(pool.logits.shape[:3])
    for n in range(records):
        p = np.exp(log_p[:, n, :, pool.labels[n]])
        phi[:, n] = np.log(p / (1 - p))
    if variance == "fixed":
        phi = phi.mean(axis=2, keepdims=True)
    scores = np.zeros((models, records))
    for m in range(models):
        shadows = [k for k in range(models) if k != m]
        ins = [phi[[k for k in shadows if pool.keep[k, n]], n] for n in range(records)]
        outs = [phi[[k for k in shadows if not pool.keep[k, n]], n] for n in range(records)]
        for a in range(phi.shape[2]):
            if mode == "offline":
                left = np.concatenate([o[:, a] - o[:, a].mean() for o in outs])
                common_out = (left**2).sum() / sum(len(o) - 1 for o in outs)
                for n in range(records):
                    o = outs[n][:, a]
                    v_out = common_out if variance == "fixed" else np.var(o, ddof=1)
                    beats = norm.cdf(phi[m, n, a], o.mean(), np.sqrt(v_out))  # 1 - P[Z > phi]
                    scores[m, n] += norm.ppf(beats) / phi.shape[2]
                continue
            gaps = [
                i[:, a].mean() - o[:, a].mean()
                for i, o in zip(ins, outs, strict=True)
                if len(i) and len(o)
            ]
            common = []
            for side in (ins, outs):
                left = np.concatenate([s[:, a] - s[:, a].mean() for s in side if len(s) > 1])
                common.append((left**2).sum() / sum(len(s) - 1 for s in side if len(s) > 1))
            for n in range(records):
                i, o = ins[n][:, a], outs[n][:, a]
                mean_in = i.mean() if len(i) else o.mean() + np.mean(gaps)
                mean_out = o.mean() if len(o) else i.mean() - np.mean(gaps)
                v_in, v_out = (
                    common if variance == "fixed" else (np.var(i, ddof=1), np.var(o, ddof=1))
                )
                ratio = norm.logpdf(phi[m, n, a], mean_in, np.sqrt(v_in)) - norm.logpdf(
                    phi[m, n, a], mean_out, np.sqrt(v_out)
                )
                scores[m, n] += ratio / phi.shape[2]
    return scores


@pytest.mark.parametrize("views", [1, 3])
def test_lira_with_fixed_variance_equals_the_loop_even_where_a_side_has_no_shadow(views):
    pool = gaussian_pool(models=5, records=60, views=views, shift=1.0)
    others = pool.keep.sum(axis=0) - pool.keep
    assert (others == 0).any()
    assert (others == pool.models - 1).any()  # so the borrowed means are tested too
    scores = attack(pool, "lira").scores
    np.testing.assert_allclose(scores, loop_lira(pool, "fixed"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("views", [1, 3])
def test_lira_with_per_example_variance_equals_the_loop(views):
    pool = gaussian_pool(models=20, records=25, views=views, shift=1.0)
    scores = attack(pool, "lira", variance="per-example").scores
    np.testing.assert_allclose(scores, loop_lira(pool, "per-example"), rtol=1e-6, atol=1e-6)


def test_lira_takes_per_example_variance_from_64_models_on():
    big = gaussian_pool(models=64, records=10)
    small = gaussian_pool(models=63, records=10)
    for pool, variance in ((big, "per-example"), (small, "fixed")):
        default = attack(pool, "lira").scores
        assert np.array_equal(default, attack(pool, "lira", variance=variance).scores)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("variance", ["fixed", "per-example"])
def test_offline_lira_equals_the_loop(variance, views):
    # The loop goes through the paper's probability and back, hence the tolerance
    pool = gaussian_pool(models=20, records=25, views=views, shift=1.0)
    scores = attack(pool, "lira", mode="offline", variance=variance).scores
    np.testing.assert_allclose(scores, loop_lira(pool, variance, "offline"), rtol=1e-5, atol=1e-5)


def test_offline_lira_is_one_sided():
    # A log-odds far below the "out" shadows is further from them than one at their mean, and yet
    # less of a member
    pool = gaussian_pool(models=12, records=60)
    logits = pool.logits.copy()
    logits[0] = 0.0
    logits[0, np.arange(60), 0, pool.labels] = -50.0
    low = Pool(pool.keep, logits, pool.labels, pool.outlier, pool.accuracy)
    assert attack(low, "lira", mode="offline").scores[0].max() < -10
    assert attack(low, "lira", mode="offline").scores[1:].min() > -10


def test_out_has_its_own_fixed_variance():
    # The reference plot.py takes the spread of "in" for "out" as well; here "out" is 3 times as
    # wide, and a score at the midpoint of the means must lean to it by log(3) and the quadratic
    generator = np.random.default_rng(5)
    pool = gaussian_pool(models=40, records=400)
    odds = np.where(pool.keep, 1 + generator.normal(size=pool.keep.shape), 0)
    odds = np.where(pool.keep, odds, -1 + 3 * generator.normal(size=pool.keep.shape))
    odds[0] = 0.0
    logits = np.zeros_like(pool.logits)
    np.put_along_axis(logits, pool.labels[None, :, None, None], odds[..., None, None], axis=-1)
    wide = Pool(pool.keep, logits, pool.labels, pool.outlier, pool.accuracy)
    mean = attack(wide, "lira", variance="fixed").scores[0].mean()
    # log N(0; 1, 1) - log N(0; -1, 9) = log 3 - 1/2 + 1/18 = 0.654; the means add
    # -(1 / 2) (1 / n_in) + (1 / 18) (9 / n_out) = 0 on average; 4 standard errors are 0.05
    assert mean == pytest.approx(np.log(3) - 1 / 2 + 1 / 18, abs=0.05)


def test_lira_reaches_the_closed_form_auc_of_a_known_separation():
    # With many shadows the ratio is that of N(shift, 1) against N(0, 1): AUC = Phi(shift / sqrt 2).
    # The shadows' means add a relative variance of about 1 / 64; 0.015 holds that and 4 standard
    # errors of 25,600 targets.
    pool = gaussian_pool(models=128, records=200, shift=1.0)
    fixed = attack(pool, "lira", variance="fixed").auc.value
    assert fixed == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)
