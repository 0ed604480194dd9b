"""Attacks against plain loops written from the papers, and against planted pools."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, attack, attacks, draw_membership
from dpnorm.leakage.membership_attacks.lira import _fixed_variances, _means, _Shadows
from dpnorm.leakage.signals import log_odds


def gaussian_pool(
    models: int = 12,
    records: int = 40,
    views: int = 1,
    *,
    shift: float = 0.0,
    noise: float = 1.0,
    seed: int = 0,
    keep: np.ndarray | None = None,
) -> Pool:
    """Two-class logits whose log-odds are N(record + shift * member, noise^2)."""
    generator = np.random.default_rng([41, seed])
    keep = draw_membership(records, models, seed) if keep is None else keep
    labels = generator.integers(2, size=records)
    odds = generator.normal(size=(models, records, views)) * noise
    odds += 2 * generator.normal(size=records)[:, None] + shift * keep[..., None]
    logits = np.zeros((models, records, views, 2), dtype=np.float32)
    np.put_along_axis(logits, labels[None, :, None, None], odds[..., None], axis=-1)
    return Pool(keep, logits, labels, np.zeros(records, dtype=bool), np.zeros(models))


def loop_lira(pool: Pool, variance: str) -> np.ndarray:
    """Section V and VI of arXiv 2112.03570, one target at a time, its own model dropped."""
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


def test_shadow_statistics_of_a_target_do_not_see_the_target_model():
    pool = gaussian_pool(models=7, records=30, shift=1.0)
    target = 3
    logits = pool.logits.copy()
    logits[target] = np.random.default_rng(9).normal(size=logits[target].shape) * 50
    keep = pool.keep.copy()
    keep[target] = ~keep[target]

    def statistics(signal: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
        inside, outside = _Shadows.of(signal, keep), _Shadows.of(signal, ~keep)
        sides = [*_means(inside, outside), *_fixed_variances(inside, outside)]
        return [side[target] for side in [*sides, inside.scatter, outside.scatter]]

    changed = Pool(keep, logits, pool.labels, pool.outlier, pool.accuracy)
    before = statistics(log_odds(pool)[..., 0], pool.keep)
    after = statistics(log_odds(changed)[..., 0], changed.keep)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["loss", "lira"])
def test_a_planted_memorized_pool_is_told_apart(name):
    pool = gaussian_pool(models=8, records=200, shift=40.0)
    assert attack(pool, name).auc.value > 0.999


@pytest.mark.parametrize("models", [8, 64])
def test_fresh_records_cannot_be_told_apart(models):
    # The standard error of an AUC on n targets is sqrt(1 / (3 n)); 4 of them, at a fixed seed:
    # error probability below 1e-4
    pool = gaussian_pool(models=models, records=16_000 // models)
    for name in attacks():
        assert abs(attack(pool, name).auc.value - 0.5) < 4 * np.sqrt(1 / (3 * 16_000))


def test_lira_reaches_the_closed_form_auc_of_a_known_separation():
    # With many shadows the ratio is that of N(shift, 1) against N(0, 1): AUC = Phi(shift / sqrt 2).
    # The shadows' means add a relative variance of about 1 / 64; 0.015 holds that and 4 standard
    # errors of 25,600 targets.
    pool = gaussian_pool(models=128, records=200, shift=1.0)
    fixed = attack(pool, "lira", variance="fixed").auc.value
    assert fixed == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)


def test_loss_attack_has_the_closed_form_auc_of_a_gaussian_loss_shift():
    # Losses l = log(1 + exp(-odds)) are a monotone function of odds ~ N(shift * member, 1 + 2^2),
    # so the AUC is Phi(shift / sqrt(2 * 5)), within 4 standard errors of 3,000 records' means.
    pool = gaussian_pool(models=8, records=3000, shift=2.0)
    expected = norm.cdf(2 / np.sqrt(2 * 5))
    assert attack(pool, "loss").auc.value == pytest.approx(expected, abs=4 * np.sqrt(1 / 9000))


def test_loss_attack_scores_are_minus_the_cross_entropy():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(2, 9, 3, 4)).astype(np.float32) * 5
    labels = generator.integers(4, size=9)
    pool = Pool(draw_membership(9, 2, 0), logits, labels, np.zeros(9, dtype=bool), np.zeros(2))
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    expected = np.stack([log_p[:, n, :, labels[n]] for n in range(9)], axis=1).mean(axis=-1)
    np.testing.assert_allclose(attack(pool, "loss").scores, expected, rtol=1e-12)


def test_scores_stay_apart_where_a_softmax_saturates():
    keep = np.array([[True, False], [False, True], [True, True]])
    logits = np.zeros((3, 2, 1, 2), dtype=np.float32)
    logits[..., 1] = [[[60], [50]], [[-300], [80]], [[70], [500]]]
    pool = Pool(keep, logits, np.ones(2, dtype=int), np.zeros(2, dtype=bool), np.zeros(3))
    scores = attack(pool, "loss").scores
    np.testing.assert_allclose(log_odds(pool)[..., 0], logits[:, :, 0, 1])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 6


def test_models_that_agree_to_the_last_digit_do_not_divide_by_zero():
    pool = gaussian_pool(models=8, records=50, noise=0.0, shift=3.0)
    scores = attack(pool, "lira")
    assert np.isfinite(scores.scores).all()
    assert scores.auc.value == 1.0


def test_pools_that_an_attack_cannot_use_are_refused():
    one = gaussian_pool(keep=np.array([[True, False, True]]), models=1, records=3)
    assert attack(one, "loss").scores.shape == (1, 3)
    with pytest.raises(InputError, match=r"pool of 1 model.*at least 3"):
        attack(one, "lira")
    with pytest.raises(InputError, match=r"pool of 2 model.*at least 3"):
        attack(gaussian_pool(models=2, records=3), "lira")
    rows = np.arange(4)[:, None] < 2
    one_side = gaussian_pool(models=4, records=3, keep=np.tile([[True, True, False]], (4, 1)))
    with pytest.raises(InputError, match="no record has both"):
        attack(one_side, "lira")
    halves = gaussian_pool(models=4, records=3, keep=np.tile(rows, (1, 3)))
    with pytest.raises(InputError, match="at least 2 shadows that are in"):
        attack(halves, "lira", variance="per-example")


def test_unknown_names_are_answered_with_the_nearest():
    pool = gaussian_pool(models=4, records=5)
    assert attacks() == ["lira", "loss"]
    with pytest.raises(InputError, match=r"unknown attack 'lyra'.*did you mean 'lira'"):
        attack(pool, "lyra")
    with pytest.raises(InputError, match=r"unknown option of the attack 'lira' 'varianc'"):
        attack(pool, "lira", varianc="fixed")
    with pytest.raises(InputError, match="unknown option of the attack 'loss' 'variance'"):
        attack(pool, "loss", variance="fixed")
    with pytest.raises(InputError, match="unknown variance 'fix'"):
        attack(pool, "lira", variance="fix")
