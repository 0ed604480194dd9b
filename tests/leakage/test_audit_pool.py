"""Audits of pools: what each bound may claim, and what is refused.

A bound of a right pool exceeds the truth with probability 5% at most, each; seeds are fixed.
"""

import dataclasses
import json
import math

import numpy as np
import pytest

from dpnorm.errors import InputError
from dpnorm.leakage import (
    GuessPlan,
    audit,
    audit_pool,
    audit_pool_record,
    draw_membership,
    multi_run_epsilon,
)
from dpnorm.leakage.audits import Trials
from tests.leakage.attack_pools import gaussian_pool


def one_record(scores, inside, *, records=40, outlier=()):
    """A pool of M models whose record 0 has these log-odds."""
    models = len(scores)
    keep = draw_membership(records, models, seed=0)
    keep[:, 0] = inside
    logits = np.zeros((models, records, 1, 2), dtype=np.float32)
    logits[:, 0, 0, 0] = scores
    planted = np.zeros(records, dtype=bool)
    planted[list(outlier)] = True
    pool = gaussian_pool(models=models, records=records, shift=0.0)
    labels = np.zeros(records, dtype=np.int64)
    return dataclasses.replace(pool, keep=keep, logits=logits, labels=labels, outlier=planted)


def test_all_bounds_hold_together_each_at_its_part_of_the_error():
    pool = gaussian_pool(models=8, records=2000, shift=2.0)
    found = audit_pool(pool, delta=1e-5, confidence=0.9)
    assert [bound.confidence for bound in found.bounds] == pytest.approx([1 - 0.1 / 8] * 8)
    assert found.largest.value == max(bound.value for bound in found.bounds) > 1
    assert all(bound.standing == "rigorous" for bound in found.bounds)
    assert found.largest.value < found.largest.ceiling


def test_a_model_is_audited_by_its_own_losses_and_coins():
    from dpnorm.leakage.signals import log_odds

    pool = gaussian_pool(models=8, records=500, shift=2.0)
    plan = GuessPlan.two_sided(500)
    scores = log_odds(pool).mean(axis=2)
    alone = audit(plan, scores[3], pool.keep[3], delta=1e-5, confidence=1 - 0.05 / 8)
    assert audit_pool(pool, delta=1e-5).bounds[3] == alone
    # what the others show changes nothing
    logits = pool.logits.copy()
    logits[[0, 1, 2, 4, 5, 6, 7]] = 0
    changed = dataclasses.replace(pool, logits=logits)
    assert audit_pool(changed, delta=1e-5).bounds[3] == alone


def test_a_pool_that_leaks_nothing_shows_nothing():
    found = audit_pool(gaussian_pool(models=8, records=1000, shift=0.0), delta=1e-5)
    assert found.largest.value == 0
    assert "no sign of safety" in str(found)


def test_a_gaussian_bound_says_what_it_assumes():
    pool = gaussian_pool(models=8, records=2000, shift=2.0)
    found = audit_pool(pool, delta=1e-5, method="gaussian")
    assert {bound.standing for bound in found.bounds} == {"assumes a trade-off family"}
    assert found.largest.value > audit_pool(pool, delta=1e-5).largest.value


def test_the_audit_of_a_pool_is_json():
    found = audit_pool(gaussian_pool(models=8, records=400, shift=2.0), delta=1e-5)
    read = json.loads(found.to_json())
    assert len(read["models"]) == 8
    assert read["largest"]["epsilon"] == found.largest.value


def test_one_record_is_judged_on_models_that_had_no_part_in_its_threshold():
    generator = np.random.default_rng(1)
    inside = generator.random(100) < 0.5
    pool = one_record(np.where(inside, 3.0, -3.0) + generator.normal(size=100) / 2, inside)
    found = audit_pool_record(pool, delta=1e-5)
    second = inside[50:]
    trials = Trials(
        true_positives=int(second.sum()),
        members=int(second.sum()),
        false_positives=0,
        nonmembers=int((~second).sum()),
    )
    # the 40 records of 50 models were drawn again with probability 40 / 2^50 at most
    exact = multi_run_epsilon(trials, delta=1e-5, independent=True)
    assert found.value == pytest.approx(exact.value, abs=1e-9)
    assert 1 < found.value <= found.ceiling
    assert (found.standing, found.confidence) == ("rigorous", 0.95)
    assert "record 0; the threshold on its loss, from the first 50 models" in found.fixed


def test_a_threshold_is_not_chosen_on_the_models_of_the_trials():
    """The second half tells members by the other sign: the threshold of the first shows nothing."""
    inside = np.arange(80) % 2 == 0
    turned = np.where(np.arange(80) < 40, 3.0, -3.0)
    found = audit_pool_record(one_record(np.where(inside, turned, -turned), inside), delta=1e-5)
    assert found.correct == 0


def test_what_redrawn_records_may_have_tied_is_taken_off_the_error():
    inside = np.arange(24) % 2 == 0
    pool = one_record(np.where(inside, 3.0, -3.0), inside, records=40)
    found = audit_pool_record(pool, delta=0, confidence=0.9)
    tied = 40 / 2**12
    # 6 of 6 and 0 of 6, each limit at half of what is left of the error
    low = ((0.1 - tied) / 2) ** (1 / 6)
    assert found.value == pytest.approx(math.log(low / (1 - low)), abs=1e-9)
    assert found.standing == "rigorous"


@pytest.mark.parametrize(("models", "records"), [(8, 40), (24, 4000)])
def test_with_few_models_trials_are_not_called_independent(models, records):
    inside = np.arange(models) % 2 == 0
    pool = one_record(np.where(inside, 3.0, -3.0), inside, records=records)
    found = audit_pool_record(pool, delta=1e-5)
    assert found.standing == "heuristic"
    assert "drawn again" in found.condition


def test_the_record_is_the_first_outlier_or_the_one_asked_for():
    inside = np.arange(40) % 2 == 0
    pool = one_record(np.where(inside, 3.0, -3.0), inside, outlier=(7, 9))
    assert audit_pool_record(pool, delta=1e-5).fixed.startswith("record 7;")
    assert audit_pool_record(pool, delta=1e-5, record=0).fixed.startswith("record 0;")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": -3}, "confidence is -3"),
        ({"delta": 1}, "delta is 1"),
        ({"share": 2}, "share is 2"),
        ({"method": "multi-run"}, "unknown method 'multi-run'"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    pool = gaussian_pool(models=8, records=400, shift=1.0)
    with pytest.raises(InputError, match=message):
        audit_pool(pool, **({"delta": 1e-5} | options))


def test_small_pools_are_refused():
    pool = gaussian_pool(models=3, records=400, shift=1.0)
    with pytest.raises(InputError, match=r"3 model\(s\); an audit takes 8"):
        audit_pool(pool, delta=1e-5)
    with pytest.raises(InputError, match="3 models; 4 at least"):
        audit_pool_record(pool, delta=1e-5)


def test_a_record_that_is_in_all_trials_or_is_not_there_is_refused():
    inside = np.arange(40) % 2 == 0
    inside[20:] = True
    pool = one_record(np.where(inside, 3.0, -3.0), inside)
    with pytest.raises(InputError, match="in all of the 20 models"):
        audit_pool_record(pool, delta=1e-5)
    with pytest.raises(InputError, match="record 40 was asked for"):
        audit_pool_record(pool, delta=1e-5, record=40)
