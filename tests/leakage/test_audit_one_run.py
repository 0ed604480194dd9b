import itertools
import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dpnorm.errors import InputError
from dpnorm.leakage import Estimate, one_run_epsilon, one_run_p_value


@pytest.mark.parametrize(
    ("correct", "guesses", "canaries", "delta", "epsilon"),
    [
        (75, 100, 100, 0, 0.70221),
        (75, 100, 100, 1e-4, 0.69947),
        (75, 100, 1000, 1e-4, 0.67298),
        (1439, 1510, 100_000, 1e-5, 2.67585),
        (9820, 10_000, 10_000, 1e-5, 3.87132),
        (100, 100, 100, 1e-5, 3.49),
        (1000, 1000, 1000, 1e-5, 5.78),
        (10_000, 10_000, 10_000, 1e-5, 7.83),
    ],
)
def test_the_bound_equals_the_published_values(correct, guesses, canaries, delta, epsilon):
    bound = one_run_epsilon(correct, guesses, canaries, delta=delta)
    # the ceilings are known to two decimals only
    assert bound.value == pytest.approx(epsilon, abs=0.006 if correct == guesses else 0.002)
    assert bound.ceiling >= bound.value


def test_the_p_value_equals_the_published_value():
    assert one_run_p_value(75, 100, 100, epsilon=math.log(3), delta=0) == pytest.approx(
        0.55347, abs=1e-5
    )


def by_brute_force(correct, guesses, canaries, epsilon, delta):
    """The formula of the corollary, term by term."""
    w = binom(guesses, 1 / (1 + math.exp(-epsilon)))
    beta = sum(w.pmf(k) for k in range(correct, guesses + 1))
    alpha = max(
        (sum(w.pmf(k) for k in range(correct - i, correct)) / i for i in range(1, correct + 1)),
        default=0.0,
    )
    return min(1.0, beta + 2 * canaries * delta * alpha)


sizes = st.integers(1, 40).flatmap(
    lambda m: st.integers(1, m).flatmap(
        lambda r: st.tuples(st.integers(0, r), st.just(r), st.just(m))
    )
)
deltas = st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, 0.3])


@settings(max_examples=80, deadline=None)
@given(size=sizes, epsilon=st.floats(0, 12), delta=deltas)
def test_the_p_value_equals_the_sums_of_the_formula(size, epsilon, delta):
    expected = by_brute_force(*size, epsilon, delta)
    found = one_run_p_value(*size, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0, 9.0])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.9999])
def test_looking_at_windows_near_the_mean_only_loses_nothing(epsilon, share):
    guesses, canaries, delta = 30_000, 50_000, 1e-6
    correct = int(share * guesses)
    w = binom(guesses, 1 / (1 + math.exp(-epsilon)))
    masses = w.pmf(range(correct))[::-1].cumsum() / range(1, correct + 1)
    expected = min(1.0, w.sf(correct - 1) + 2 * canaries * delta * masses.max())
    found = one_run_p_value(correct, guesses, canaries, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(size=sizes, delta=deltas, confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_bound_is_the_largest_epsilon_that_is_rejected(size, delta, confidence):
    bound = one_run_epsilon(*size, delta=delta, confidence=confidence)
    above = one_run_p_value(*size, epsilon=bound.value + 1e-6, delta=delta)
    assert above >= 1 - confidence - 1e-12
    if bound.value > 0:
        assert one_run_p_value(*size, epsilon=bound.value, delta=delta) < 1 - confidence


@settings(max_examples=80, deadline=None)
@given(size=sizes, delta=deltas)
def test_the_bound_grows_with_evidence_and_falls_with_caution(size, delta):
    correct, guesses, canaries = size
    base = one_run_epsilon(correct, guesses, canaries, delta=delta).value
    slack = 1e-8
    assert one_run_epsilon(guesses, guesses, canaries, delta=delta).value >= base - slack
    if correct < guesses:
        more = one_run_epsilon(correct + 1, guesses, canaries, delta=delta).value
        assert more >= base - slack
    assert one_run_epsilon(correct, guesses, 2 * canaries, delta=delta).value <= base + slack
    surer = one_run_epsilon(correct, guesses, canaries, delta=delta, confidence=0.99).value
    assert surer <= base + slack
    assert one_run_epsilon(correct, guesses, canaries, delta=delta / 2).value >= base - slack


@settings(max_examples=60, deadline=None)
@given(size=sizes, epsilon=st.floats(0, 6), delta=deltas)
def test_where_the_p_value_counts_it_falls_with_every_right_guess(size, epsilon, delta):
    # what makes the bound of random evidence valid: at each epsilon a rejection is a tail event
    _, guesses, canaries = size
    values = [
        one_run_p_value(v, guesses, canaries, epsilon=epsilon, delta=delta)
        for v in range(guesses + 1)
    ]
    for now, after in itertools.pairwise(values):
        assert after <= now + 1e-12 or after >= 0.4


@settings(max_examples=60, deadline=None)
@given(size=sizes, epsilon=st.floats(0, 4), delta=st.sampled_from([0.0, 1e-3, 0.05]))
def test_no_exactly_known_mechanism_is_rejected(size, epsilon, delta):
    # Each bit is revealed with probability delta, else answered truthfully with probability q:
    # (epsilon, delta)-DP, and V ~ Binomial(r, delta + (1 - delta) q) however the r are picked.
    q = 1 / (1 + math.exp(-epsilon))
    correct, guesses, canaries = size
    tail = binom.sf(correct - 1, guesses, delta + (1 - delta) * q)
    p_value = one_run_p_value(correct, guesses, canaries, epsilon=epsilon, delta=delta)
    assert p_value >= tail - 1e-9


def test_a_hundred_thousand_canaries_take_well_under_a_second():
    start = time.perf_counter()
    one_run_epsilon(1438, 1510, 100_000, delta=1e-5)
    one_run_epsilon(93_000, 99_000, 100_000, delta=1e-6)
    assert time.perf_counter() - start < 1.0  # 0.03 s on an idle core


def test_a_bound_prints_what_one_must_know_and_becomes_json():
    bound = one_run_epsilon(75, 100, 1000, delta=1e-4)
    assert isinstance(bound, Estimate)
    assert bound.low == bound.value == float(bound)
    assert bound.high == math.inf
    assert bound.confidence == 0.95
    assert str(bound).splitlines() == [
        "epsilon >= 0.673 at delta 0.0001, confidence 95%",
        "  standing:  rigorous: for any mechanism, if members were drawn by fair coins",
        "  method:    one run (arXiv 2305.08846)",
        "  evidence:  75 of 100 guesses right, 1000 canaries",
        "  ceiling:   3.202, the most that an audit of this size could show",
        "  fixed:     the number of guesses, by the caller's word",
    ]
    plain = json.loads(json.dumps(bound.to_dict(), allow_nan=False))
    assert plain["epsilon"] == bound.value
    assert plain["high"] == "inf"
    assert plain["ceiling"] == bound.ceiling
    assert (plain["canaries"], plain["guesses"], plain["correct"]) == (1000, 100, 75)
    assert plain["standing"] == "rigorous"


def test_a_bound_of_zero_says_that_it_proves_no_privacy():
    bound = one_run_epsilon(50, 100, 100, delta=1e-5)
    assert bound.value == 0
    assert "no leakage shown, which is not to show that there is none" in str(bound)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((11, 10, 20), "11 correct guesses of 10"),
        ((5, 30, 20), "30 guesses for 20 canaries"),
        ((-1, 10, 20), "correct is -1"),
        ((0, 0, 20), "guesses is 0; a whole number of at least 1"),
        ((5.0, 10, 20), "correct is 5.0; a whole number is needed"),
        ((True, 10, 20), "correct is True"),
    ],
)
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(InputError, match=message):
        one_run_epsilon(*counts, delta=1e-5)
    with pytest.raises(InputError, match=message):
        one_run_p_value(*counts, epsilon=1.0, delta=1e-5)


@pytest.mark.parametrize("delta", [-1e-9, 1.0, 2, float("nan"), "1e-5", None])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(InputError, match="delta is"):
        one_run_epsilon(5, 10, 20, delta=delta)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, float("nan")])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(InputError, match="confidence is"):
        one_run_epsilon(5, 10, 20, delta=1e-5, confidence=confidence)


@pytest.mark.parametrize("epsilon", [-1.0, math.inf, math.nan])
def test_a_p_value_of_no_claim_is_refused(epsilon):
    with pytest.raises(InputError, match="epsilon is"):
        one_run_p_value(5, 10, 20, epsilon=epsilon, delta=1e-5)
