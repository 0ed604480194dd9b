import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, attack, draw_membership


def test_every_record_is_in_a_model_and_out_of_one():
    for models in (2, 3, 8):
        keep = draw_membership(2000, models, seed=models)
        assert keep.any(axis=0).all()
        assert not keep.all(axis=0).any()


def test_each_entry_is_a_fair_coin_independent_of_the_others_in_its_column():
    keep = draw_membership(20_000, 12, seed=1)
    # 240,000 coins: 5 standard errors are 0.0051 (error probability below 1e-6)
    assert abs(keep.mean() - 0.5) < 0.0052
    correlation = np.corrcoef(keep)[np.triu_indices(12, 1)]
    # 66 correlations with standard error 1 / sqrt(20,000); all within 5 of them
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
    # the counts spread like a binomial's: balanced columns would have variance 0
    assert keep.sum(axis=0).var() == pytest.approx(12 / 4, rel=0.06)


def test_the_same_seed_draws_the_same_membership_and_another_seed_another():
    assert np.array_equal(draw_membership(100, 8, 3), draw_membership(100, 8, 3))
    assert not np.array_equal(draw_membership(100, 8, 3), draw_membership(100, 8, 4))


def _null_auc(keep: np.ndarray, seed: int) -> float:
    """The AUC of LiRA on logits that do not depend on membership, only on the record."""
    generator = np.random.default_rng([77, seed])
    models, records = keep.shape
    labels = generator.integers(5, size=records)
    logits = generator.normal(size=(models, records, 1, 5)).astype(np.float32)
    logits[:, np.arange(records), 0, labels] += 2 * generator.normal(size=records)
    pool = Pool(keep, logits, labels, np.zeros(records, dtype=bool), np.zeros(models))
    return attack(pool, "lira").roc().area


def test_without_signal_lira_is_unbiased_on_fair_coins_and_biased_on_balanced_columns():
    coins, balanced = [], []
    for seed in range(40):
        coins.append(_null_auc(draw_membership(1000, 8, seed), seed))
        order = np.random.default_rng([78, seed]).random((8, 1000)).argsort(axis=0)
        balanced.append(_null_auc(order < 4, seed))
    error = np.std(coins) / np.sqrt(40)
    assert error < 0.003
    assert abs(np.mean(coins) - 0.5) < 4 * error  # error probability below 1e-4; seeds are fixed
    assert np.mean(balanced) < 0.5 - 5 * error


@pytest.mark.parametrize(
    ("records", "models", "seed", "says"),
    [(0, 4, 0, "0 records"), (5, 1, 0, "1 models"), (5, 4, -1, "seed is -1")],
)
def test_an_impossible_draw_says_what_is_needed(records, models, seed, says):
    with pytest.raises(InputError, match=says):
        draw_membership(records, models, seed)
