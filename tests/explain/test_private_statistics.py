"""Topic `private-statistics`: two releases of one batch are counted together."""

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from dpnorm.explain import private_statistics
from dpnorm.explain.private_statistics import exact_epsilon
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return private_statistics.measure()


def test_every_number_carries_the_argument(measured):
    assert_every_number(
        "private-statistics",
        measured,
        shift_subject=lambda n: n["shift_subject"] > 2,
        shift_control=lambda n: 0 < n["shift_control"] <= 1 + 1e-5,
        exact_one=lambda n: n["exact_one"] > 1.2 * n["separate_one"],
        together_one=lambda n: n["exact_one"] <= n["together_one"] <= 1.05 * n["exact_one"],
        separate_one=lambda n: 0 < n["separate_one"] < n["exact_one"],
        together_all=lambda n: n["together_all"] > n["together_one"],
        separate_all=lambda n: n["separate_all"] < 0.95 * n["together_all"],
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = private_statistics.measure(subject="private-batch", control="batch").claims
    assert [claim.holds for claim in claims] == [False, False, True, True, True]


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.05), (0.5, 0.01), (2.0, 0.3), (0.7, 1.0)])
def test_the_exact_epsilon_is_that_of_the_privacy_loss_distribution(noise, rate):
    # dp-accounting, on a fine grid: its upper and lower bound enclose the closed form
    exact = exact_epsilon(noise, rate, 1e-5)
    low, high = (
        pld.from_gaussian_mechanism(
            noise,
            sampling_prob=rate,
            pessimistic_estimate=upper,
            value_discretization_interval=1e-4,
        ).get_epsilon_for_delta(1e-5)
        for upper in (False, True)
    )
    assert low - 1e-6 <= exact <= high + 1e-6
    assert high - low < 2e-3
