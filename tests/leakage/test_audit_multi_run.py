import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from dpnorm.errors import InputError
from dpnorm.leakage import Trials, multi_run_epsilon, multi_run_gaussian_epsilon
from dpnorm.leakage.audits.gaussian import epsilon_of_mu

BOUNDS = [multi_run_epsilon, multi_run_gaussian_epsilon]


def trials(true_positives, members, false_positives, nonmembers):
    return Trials(
        true_positives=true_positives,
        members=members,
        false_positives=false_positives,
        nonmembers=nonmembers,
    )


def shares():
    return st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=80, deadline=None)
@given(inside=shares(), outside=shares(), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_the_limits_are_those_that_clopper_and_pearson_define(inside, outside, confidence):
    # at the limit, what was seen or more extreme has exactly half of the significance
    half = (1 - confidence) / 2
    tpr, fpr = trials(*inside, *outside).limits(confidence)
    if inside[0] == 0:
        assert tpr == 0
    else:
        assert binom.sf(inside[0] - 1, inside[1], tpr) == pytest.approx(half, rel=1e-6)
    if outside[0] == outside[1]:
        assert fpr == 1
    else:
        assert binom.cdf(outside[0], outside[1], fpr) == pytest.approx(half, rel=1e-6)


def test_both_sides_and_the_gaussian_follow_from_the_limits():
    delta = 1e-3
    for counts in ((60, 100, 2, 100), (98, 100, 40, 100)):
        tpr, fpr = trials(*counts).limits(0.95)
        low = math.log((tpr - delta) / fpr)
        high = math.log((1 - fpr - delta) / (1 - tpr))
        bound = multi_run_epsilon(trials(*counts), delta=delta, independent=True)
        assert bound.value == pytest.approx(max(low, high))
        mu = norm.ppf(tpr) - norm.ppf(fpr)
        gaussian = multi_run_gaussian_epsilon(trials(*counts), delta=delta, independent=True)
        assert gaussian.value == pytest.approx(epsilon_of_mu(mu, delta))
        assert gaussian.value > bound.value


def test_swapping_the_roles_of_in_and_out_changes_nothing():
    one, other = trials(60, 100, 2, 80), trials(78, 80, 40, 100)
    for method in BOUNDS:
        first, second = (method(t, delta=1e-4, independent=True).value for t in (one, other))
        assert first == pytest.approx(second)


@pytest.mark.parametrize("method", BOUNDS)
@settings(max_examples=40, deadline=None)
@given(inside=shares(), outside=shares())
def test_the_bound_grows_with_evidence_and_falls_with_caution(method, inside, outside):
    counts = (*inside, *outside)
    bound = method(trials(*counts), delta=1e-4, independent=True)
    assert 0 <= bound.value <= bound.ceiling + 1e-9
    surer = method(trials(*counts), delta=1e-4, independent=True, confidence=0.99)
    assert surer.value <= bound.value + 1e-9
    if inside[0] < inside[1]:
        better = trials(inside[0] + 1, inside[1], *outside)
        assert method(better, delta=1e-4, independent=True).value >= bound.value - 1e-9
    if outside[0] > 0:
        better = trials(*inside, outside[0] - 1, outside[1])
        assert method(better, delta=1e-4, independent=True).value >= bound.value - 1e-9


def test_many_trials_come_close_to_the_truth_from_below():
    # the counts that N(0, 1) and N(1, 1) give on average above the threshold 3, a million of each
    million = 1_000_000
    expected = trials(int(million * norm.sf(2)), million, int(million * norm.sf(3)), million)
    gaussian = multi_run_gaussian_epsilon(expected, delta=1e-5, independent=True)
    assert 0.95 * epsilon_of_mu(1.0, 1e-5) < gaussian.value < epsilon_of_mu(1.0, 1e-5)
    plain = multi_run_epsilon(expected, delta=1e-5, independent=True)
    assert 0.95 * math.log(norm.sf(2) / norm.sf(3)) < plain.value < epsilon_of_mu(1.0, 1e-5)


@pytest.mark.parametrize("method", BOUNDS)
def test_the_extremes_are_finite(method):
    everything = method(trials(100, 100, 0, 100), delta=1e-5, independent=True)
    assert 0 < everything.value == everything.ceiling < math.inf
    for nothing in ((0, 100, 100, 100), (0, 100, 0, 100), (100, 100, 100, 100), (0, 1, 1, 1)):
        assert method(trials(*nothing), delta=1e-5, independent=True).value == 0


def test_trials_of_one_run_are_marked_heuristic():
    counts = trials(60, 100, 2, 80)
    standings = [
        (multi_run_epsilon, True, "rigorous"),
        (multi_run_gaussian_epsilon, True, "assumes a trade-off family"),
        (multi_run_epsilon, False, "heuristic"),
        (multi_run_gaussian_epsilon, False, "heuristic"),
    ]
    for method, independent, standing in standings:
        bound = method(counts, delta=1e-5, independent=independent)
        assert bound.standing == standing
        assert ("come from one run" in str(bound)) == (not independent)
        assert (bound.canaries, bound.guesses, bound.correct) == (180, 180, 138)


def test_counts_may_be_numpy_integers_and_the_bound_still_becomes_json():
    counts = trials(*np.array([60, 100, 2, 80]))
    for method in BOUNDS:
        bound = method(counts, delta=np.float64(1e-5), independent=True)
        assert bound == method(trials(60, 100, 2, 80), delta=1e-5, independent=True)
        assert json.loads(json.dumps(bound.to_dict(), allow_nan=False))["correct"] == 138


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((101, 100, 0, 10), "true_positives is 101, members is 100"),
        ((1, 100, 11, 10), "false_positives is 11, nonmembers is 10"),
        ((0, 0, 1, 10), "members is 0; a whole number of at least 1"),
        ((1, 10, 0, 0), "nonmembers is 0"),
        ((-1, 10, 0, 10), "true_positives is -1"),
        ((0.5, 10, 0, 10), "true_positives is 0.5; a whole number is needed"),
    ],
)
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(InputError, match=message):
        trials(*counts)


@pytest.mark.parametrize("method", BOUNDS)
def test_rates_out_of_range_are_refused(method):
    counts = trials(6, 10, 1, 10)
    with pytest.raises(InputError, match="delta is 1"):
        method(counts, delta=1.0, independent=True)
    with pytest.raises(InputError, match="confidence is 0"):
        method(counts, delta=0.1, independent=True, confidence=0.0)
    assert multi_run_epsilon(counts, delta=0, independent=True).value >= 0
    with pytest.raises(InputError, match="no finite epsilon"):
        multi_run_gaussian_epsilon(counts, delta=0, independent=True)
