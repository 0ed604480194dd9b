"""Topic `before-noise`: the same noise hides a bounded sum and fails to hide another."""

import pytest
from scipy import stats

from dpnorm.explain import before_noise, coupling
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return before_noise.measure()


def test_every_number_carries_the_argument(measured):
    # fixed seeds; an interval misses with probability 0.001 over seeds
    allowed = stats.norm.cdf(1 / 4 / 2)
    assert_every_number(
        "before-noise",
        measured,
        allowed=lambda n: n["allowed"] == pytest.approx(allowed),
        shift_subject=lambda n: n["shift_subject"] > 2,
        shift_control=lambda n: n["shift_control"] <= 1 + 1e-5,
        right_subject=lambda n: n["right_subject"].low > n["allowed"],
        right_control=lambda n: n["right_control"].low <= n["allowed"] <= n["right_control"].high,
        expected_subject=lambda n: n["expected_subject"] > n["allowed"],
        expected_control=lambda n: n["expected_control"] <= n["allowed"] + 1e-6,
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = before_noise.measure(subject="group", control="batch").claims
    assert [claim.holds for claim in claims] == [False, False, True]


def test_both_topics_speak_of_the_same_pair(measured):
    other = coupling.measure().numbers
    for name in ("shift_subject", "shift_control"):
        assert measured.numbers[name] == pytest.approx(other[name])
