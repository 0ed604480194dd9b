import importlib
import json

import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import Pool, draw_membership, memorization
from dpnorm.leakage.influence import influence


def pool_of(keep, correct, test=None, *, outlier=None, classes=4, seed=0):
    """A pool whose models are right exactly where `correct` (and `test`) says so."""
    generator = np.random.default_rng([62, seed])

    def logits(right, labels):
        predicted = np.where(right, labels, (labels + 1) % classes)
        return np.eye(classes, dtype=np.float32)[predicted]

    labels = generator.integers(classes, size=keep.shape[1])
    outlier = np.zeros(keep.shape[1], bool) if outlier is None else outlier
    arrays = {}
    if test is not None:
        test_labels = generator.integers(classes, size=test.shape[1])
        arrays = {"test_logits": logits(test, test_labels), "test_labels": test_labels}
    logit = logits(correct, labels)[:, :, None]
    return Pool(keep, logit, labels, outlier, np.zeros(len(keep)), **arrays)


def noise_pool(models=12, records=30, targets=20, seed=0):
    generator = np.random.default_rng([63, seed])
    keep = draw_membership(records, models, seed)
    return pool_of(
        keep, generator.random(keep.shape) < 0.6, generator.random((models, targets)) < 0.6
    )


def planted_pool(seen=0.9, unseen=0.2, *, models=300, seed=0):
    """Record 3 decides test record 5 and record 8 of the pool; record 3 is memorized."""
    generator = np.random.default_rng([64, seed])
    keep = draw_membership(20, models, seed)
    correct, test = generator.random((models, 20)) < 0.7, generator.random((models, 15)) < 0.7
    has = keep[:, 3]
    test[:, 5] = generator.random(models) < np.where(has, seen, unseen)
    correct[:, 8] = generator.random(models) < np.where(has, seen, unseen)
    correct[:, 3] = generator.random(models) < np.where(has, 0.95, 0.1)
    return pool_of(keep, correct, test)


def loop_influence(pool, on):
    correct = pool.logits.mean(2).argmax(-1) == pool.labels
    if on == "test":
        correct = pool.test_logits.argmax(-1) == pool.test_labels
    values = np.full((pool.records, correct.shape[1]), np.nan)
    for i in range(pool.records):
        for j in range(correct.shape[1]):
            inside, outside = [], []
            for m in range(pool.models):
                if on == "records" and pool.keep[m, j]:
                    continue
                (inside if pool.keep[m, i] else outside).append(correct[m, j])
            if inside and outside:
                values[i, j] = np.mean(inside) - np.mean(outside)
    return values


@pytest.mark.parametrize("on", ["records", "test"])
@pytest.mark.parametrize("models", [3, 12])
def test_influence_equals_the_loop_over_pairs(on, models, monkeypatch):
    pool = noise_pool(models)
    expected = loop_influence(pool, on)
    for block in (1024, 7):
        monkeypatch.setattr(importlib.import_module("dpnorm.leakage.influence"), "_BLOCK", block)
        found = influence(pool, on=on)
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
        assert np.array_equal(np.isnan(found.standard_error()), np.isnan(expected))
    assert np.isnan(expected).any() == (on == "records")
    np.testing.assert_array_equal(found.memorization, memorization(pool).values)


def test_a_subset_of_records_has_the_rows_of_the_whole():
    pool, chosen = noise_pool(), [4, 17, 2]
    for on in ("records", "test"):
        part, whole = influence(pool, on=on, records=chosen), influence(pool, on=on)
        np.testing.assert_array_equal(part.values, whole.values[chosen])
        np.testing.assert_array_equal(part.standard_error(), whole.standard_error()[chosen])
        np.testing.assert_array_equal(part.memorization, whole.memorization[chosen])
        pairs = whole.pairs(0.3, 0.0)
        within = [pair for pair in pairs if pair[0] in chosen]
        assert sorted(part.pairs(0.3, 0.0)) == sorted(within)


@pytest.mark.parametrize(("on", "target"), [("test", 5), ("records", 8)])
def test_a_planted_influence_is_found_with_its_size_and_alone(on, target):
    found = influence(planted_pool(), on=on)
    # 0.9 - 0.2; outside of 3.3 standard errors with probability 0.001 (seeds are fixed)
    assert abs(found.values[3, target] - 0.7) < 3.3 * found.standard_error()[3, target]
    pairs = found.pairs(0.4)
    assert list(pairs) == [(3, target, pytest.approx(found.values[3, target]))]
    assert pairs.by_chance.high == 0


def test_the_standard_errors_hold_the_true_influence():
    # 2,400 intervals of 1.96 standard errors, with 40 models and shares up to 0.97: the seed is
    # fixed; coverage is near 0.95, and 0.93 to 0.98 leaves room for 40 models
    generator = np.random.default_rng(5)
    keep = draw_membership(120, 40, 3)
    test = np.empty((40, 20), bool)
    share = np.linspace(0.03, 0.97, 20)
    test[:] = generator.random(test.shape) < share
    found = influence(pool_of(keep, generator.random(keep.shape) < 0.5, test), on="test")
    covered = np.abs(found.values) <= 1.96 * found.standard_error()
    assert 0.93 < covered.mean() < 0.98


def test_noise_gives_as_many_pairs_as_chance_says():
    # The interval holds 95% of the permutations; 10 independent pools leave it 4 times or more
    # with probability 0.001 (seeds are fixed)
    left = 0
    for seed in range(10):
        found = influence(noise_pool(models=16, records=60, targets=60, seed=seed), on="test")
        pairs = found.pairs(0.15, -1.0, permutations=60)
        assert pairs.by_chance.value > 100
        left += not pairs.by_chance.low <= len(pairs) <= pairs.by_chance.high
    assert left < 4


def test_pairs_are_sorted_thresholded_and_never_of_a_record_with_itself():
    pool = noise_pool()
    for on in ("records", "test"):
        found = influence(pool, on=on)
        pairs = found.pairs(0.2, 0.1)
        expected = {
            (i, j)
            for i, j in np.argwhere(np.nan_to_num(found.values, nan=-1) >= 0.2).tolist()
            if found.memorization[i] >= 0.1
        }
        assert {(i, j) for i, j, _ in pairs} == expected
        assert len(pairs) > 10
        assert (np.diff(pairs.value) <= 0).all()
        assert on == "test" or all(i != j for i, j, _ in pairs)
        assert pairs.by_chance == found.pairs(0.2, 0.1).by_chance
        assert pairs.by_chance != found.pairs(0.2, 0.1, seed=1).by_chance
        text = str(pairs)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert f"and {len(pairs) - 10} more" in text
        assert len(json.loads(json.dumps(pairs.to_dict()))["pairs"]) == len(pairs)


@pytest.mark.parametrize("on", ["records", "test"])
def test_chance_is_the_mean_over_shuffled_columns_of_the_memorized_records(on):
    pool = noise_pool(records=12)
    found = influence(pool, on=on)
    memorized = np.flatnonzero(found.memorization >= 0.0)
    generator, counts = np.random.default_rng(7), []
    for _ in range(20):
        shuffled = generator.permuted(pool.keep[:, memorized], axis=0)
        count = 0
        for column, i in zip(shuffled.T, memorized, strict=True):
            for j in range(found.correct.shape[1]):
                if on == "records" and i == j:
                    continue
                judges = ~pool.keep[:, j] if on == "records" else np.ones(pool.models, bool)
                right = found.correct[:, j]
                if (judges & column).any() and (judges & ~column).any():
                    value = right[judges & column].mean() - right[judges & ~column].mean()
                    count += value >= 0.21
        counts.append(count)
    chance = found.pairs(0.21, 0.0, seed=7).by_chance
    assert chance.value == pytest.approx(np.mean(counts))
    assert (chance.low, chance.high) == (min(counts), max(counts))


def test_pairs_that_chance_explains_are_called_so_and_planted_ones_are_not():
    assert "no more than chance" in str(influence(noise_pool(), on="test").pairs(0.3, -1.0))
    assert "no more than chance" not in str(influence(planted_pool(), on="test").pairs(0.4))
    nothing = influence(planted_pool(), on="test").pairs(1.0)
    assert len(nothing) == 0
    assert str(nothing).startswith("0 pairs")


def test_what_cannot_be_measured_is_refused():
    pool = noise_pool()
    plain = Pool(pool.keep, pool.logits, pool.labels, pool.outlier, pool.accuracy)
    with pytest.raises(InputError, match="no test_logits and test_labels"):
        influence(plain, on="test")
    with pytest.raises(InputError, match="unknown on 'train'"):
        influence(pool, on="train")
    for records in ([], [30], [-1], [0.5], [[1]]):
        with pytest.raises(InputError, match="records of the pool, from 0 to 29"):
            influence(pool, records=records)
    keep = pool.keep.copy()
    keep[:, 3] = True
    with pytest.raises(InputError, match="1 of 30 records are in all of the 12"):
        influence(Pool(keep, pool.logits, pool.labels, pool.outlier, pool.accuracy))
    for arguments in ({"threshold": 0.0}, {"threshold": np.nan}, {"permutations": 0}):
        with pytest.raises(InputError, match="threshold is"):
            influence(pool).pairs(**arguments)
