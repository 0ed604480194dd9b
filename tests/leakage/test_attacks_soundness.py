"""No attack may know what it guesses; planted bugs that would let it are seen."""

import numpy as np
import pytest
from scipy.stats import norm

from dpnorm.leakage import MembershipScores, Pool, attack
from dpnorm.leakage.membership_attacks.bavaria_prior import fit_priors
from dpnorm.leakage.membership_attacks.shadows import Shadows, blocks, sum_of_others
from dpnorm.leakage.signals import log_odds
from tests.leakage.attack_pools import MODES, WITH_SHADOWS, gaussian_pool, shadow_lists


@pytest.mark.parametrize(("name", "options"), MODES)
def test_on_a_null_pool_one_half_is_in_the_interval_of_the_auc(name, options):
    # The bootstrap's 95% intervals cover 99% of the time where no target leaks (bootstrap.py):
    # error probability about 1% a case, at a fixed seed. Bugs move the AUC by much more (below).
    auc = attack(gaussian_pool(models=24, records=700, seed=3), name, **options).auc
    assert auc.low <= 0.5 <= auc.high
    assert auc.high - auc.low < 0.06


SMALL = [("loss", {}), ("calibrated", {}), ("lira", {"variance": "fixed"}), ("bavaria", {})]


@pytest.mark.parametrize(
    ("models", "name", "options"), [(8, *case) for case in SMALL] + [(64, *case) for case in MODES]
)
def test_fresh_records_cannot_be_told_apart_with_few_models_or_many(models, name, options):
    # The standard error of an AUC on n targets is sqrt(1 / (3 n)); 4 of them, at a fixed seed:
    # error probability below 1e-4 a case. With 8 models some targets have no shadow on a side
    pool = gaussian_pool(models=models, records=16_000 // models)
    area = attack(pool, name, **options).roc().area
    assert abs(area - 0.5) < 4 * np.sqrt(1 / (3 * 16_000))


@pytest.mark.parametrize(("name", "options"), MODES)
def test_a_score_does_not_depend_on_any_membership_of_its_model(name, options):
    pool = gaussian_pool(models=24, records=50, views=2, shift=1.0)
    before = attack(pool, name, **options).scores
    for target in (0, 7, 23):
        keep = pool.keep.copy()
        keep[target] ^= np.random.default_rng([7, target]).random(50) < 0.5
        changed = Pool(keep, pool.logits, pool.labels, pool.outlier, pool.accuracy)
        after = attack(changed, name, **options).scores
        assert np.array_equal(after[target], before[target])
        if name != "loss" and options.get("shadows") != "all":
            assert not np.array_equal(after, before)  # the other targets' shadows did change


def test_shadow_statistics_of_a_target_do_not_see_the_target_model():
    pool = gaussian_pool(models=7, records=30, shift=1.0)
    target = 3
    signal = log_odds(pool)[..., 0]
    other, keep = signal.copy(), pool.keep.copy()
    other[target] = np.random.default_rng(9).normal(size=30) * 50
    keep[target] = ~keep[target]

    def statistics(signal: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
        sides = Shadows.of(signal, keep), Shadows.of(signal, ~keep)
        numbers = [n for s in sides for n in (s.count, s.mean, s.scatter)]
        numbers += [n for p in fit_priors(signal, keep) for n in vars(p).values()]
        return [n[target] for n in numbers]

    for old, new in zip(statistics(signal, pool.keep), statistics(other, keep), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


def leaky_lira(pool: Pool, *, own_model_too: bool) -> MembershipScores:
    """LiRA with one common variance, in a loop that can be told to forget to drop the target."""
    signal = log_odds(pool)[..., 0]
    scores = np.empty(pool.keep.shape)
    for m in range(pool.models):
        for n in range(pool.records):
            inside, outside = shadow_lists(signal, pool.keep, m, n)
            if own_model_too:
                (inside if pool.keep[m, n] else outside).append(signal[m, n])
            scores[m, n] = norm.logpdf(signal[m, n], np.mean(inside), 1) - norm.logpdf(
                signal[m, n], np.mean(outside), 1
            )
    return MembershipScores("loop", scores, pool.keep, pool.outlier)


def test_a_shadow_that_contains_its_target_would_be_seen_on_a_null_pool():
    # The null pool of the test above, fewer records. The target's own value pulls the mean of its
    # own side towards it, and the attack finds members where nothing leaks.
    pool = gaussian_pool(models=24, records=200, seed=3)
    honest, leaky = (leaky_lira(pool, own_model_too=own).auc for own in (False, True))
    assert honest.low <= 0.5 <= honest.high
    assert leaky.low > 0.5 + 0.03
    assert honest.high < leaky.low


@pytest.mark.parametrize(("name", "options"), MODES)
def test_labels_shifted_by_one_model_are_seen_on_a_memorized_pool(name, options):
    pool = gaussian_pool(models=24, records=200, shift=40.0, level=-60.0)
    shifted = Pool(
        np.roll(pool.keep, 1, axis=0), pool.logits, pool.labels, pool.outlier, pool.accuracy
    )
    right, wrong = (attack(p, name, **options).auc for p in (pool, shifted))
    assert right.low > 0.99
    assert wrong.high < 0.6


@pytest.mark.parametrize(("name", "options"), WITH_SHADOWS)
def test_the_order_of_the_records_changes_nothing_across_blocks(name, options, monkeypatch):
    pool = gaussian_pool(models=24, records=60, shift=1.0)
    whole = attack(pool, name, **options).scores
    monkeypatch.setattr("dpnorm.leakage.membership_attacks.shadows._BLOCK", 24 * 7)
    assert len(list(blocks(24, 60))) == 9
    order = np.random.default_rng(0).permutation(60)
    moved = Pool(
        pool.keep[:, order], pool.logits[:, order], pool.labels[order], pool.outlier, pool.accuracy
    )
    np.testing.assert_allclose(
        attack(moved, name, **options).scores, whole[:, order], rtol=1e-9, atol=1e-9
    )


def test_the_sum_of_the_others_is_exact_where_one_model_dwarfs_the_rest():
    values = np.full((3, 2), 1e-20)
    values[1] = 1.0
    np.testing.assert_allclose(sum_of_others(values)[1], 2e-20, rtol=1e-12)
    np.testing.assert_allclose(sum_of_others(values)[0], 1.0)
    assert (sum_of_others(np.ones((1, 4))) == 0).all()
