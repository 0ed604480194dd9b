"""Differences between pools of the same membership."""

import dataclasses

import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import MembershipScores, draw_membership, memorization
from dpnorm.leakage.comparison import auc_difference, memorized_difference
from dpnorm.leakage.memorization import memorization_of
from tests.leakage.test_pool import make_pool

MODELS, RECORDS = 12, 60


def scores(keep, shift, hardness, seed):
    noise = np.random.default_rng(seed).normal(size=keep.shape)
    return MembershipScores("test", shift * keep + hardness + noise, keep, np.zeros(RECORDS, bool))


def shared(seed):
    generator = np.random.default_rng(seed)
    return draw_membership(RECORDS, MODELS, seed), 3 * generator.normal(size=RECORDS)


def test_a_difference_is_that_of_the_two_values_and_narrower_than_both_together():
    keep, hardness = shared(1)
    strong, weak = scores(keep, 2.0, hardness, 1), scores(keep, 0.5, hardness, 2)
    found = auc_difference(strong, weak)
    assert found.value == pytest.approx(strong.auc.value - weak.auc.value)
    assert found.low > 0
    apart = np.hypot(strong.auc.high - strong.auc.low, weak.auc.high - weak.auc.low)
    assert found.high - found.low < apart
    assert auc_difference(strong, strong).value == 0


def test_equal_pools_seldom_differ():
    """95% intervals of a true 0: of 40, more than 6 exclude it in 1 of 100 choices of seeds."""
    missed = 0
    for seed in range(40):
        keep, hardness = shared(seed)
        found = auc_difference(
            scores(keep, 1.0, hardness, 100 + seed), scores(keep, 1.0, hardness, 200 + seed)
        )
        missed += not found.low <= 0 <= found.high
    assert missed <= 6


def test_memorization_differs_by_what_was_planted():
    keep = draw_membership(RECORDS, MODELS, 3)
    outlier = np.arange(RECORDS) < 30
    generator = np.random.default_rng(0)

    def pool(share):
        luck = generator.random(keep.shape) < 0.1
        return memorization_of(
            keep, luck | (keep & (generator.random(keep.shape) < share)), outlier
        )

    found = memorized_difference(pool(0.9), pool(0.4))
    # (0.1 + 0.9 * 0.9) - (0.1 + 0.9 * 0.4): standard error below 0.06 with 360 targets each
    assert found.value == pytest.approx(0.45, abs=0.2)
    assert 0 < found.low <= found.value <= found.high


def test_pools_of_other_memberships_are_not_compared():
    keep, hardness = shared(1)
    other, _ = shared(2)
    with pytest.raises(InputError, match="other memberships"):
        auc_difference(scores(keep, 1, hardness, 1), scores(other, 1, hardness, 1))
    pool = make_pool()
    found = memorization(pool)
    moved = dataclasses.replace(found, outlier=~found.outlier)
    with pytest.raises(InputError, match="other outliers"):
        memorized_difference(found, moved)
    bare = dataclasses.replace(found, outlier=np.zeros_like(found.outlier))
    with pytest.raises(InputError, match="no outliers"):
        memorized_difference(bare, bare)
