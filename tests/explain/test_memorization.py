"""Topic `memorization`: with BatchNorm more outliers are memorized than without normalization."""

import pytest

from dpnorm.explain import memorization
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return memorization.measure()


def test_every_number_carries_the_argument(measured):
    # fixed seeds; the intervals hold 95% each, and those compared do not overlap
    assert_every_number(
        "memorization",
        measured,
        memorized_subject=lambda n: n["memorized_subject"].low > n["memorized_control"].high,
        memorized_control=lambda n: n["memorized_control"].low > 0,
        memorized_other=lambda n: n["memorized_other"].low > n["memorized_control"].high,
        auc_subject=lambda n: n["auc_subject"].low > n["auc_control"].high,
        auc_control=lambda n: n["auc_control"].low > 0.5,
        auc_other=lambda n: n["auc_other"].low > n["auc_control"].high,
        gradient_subject=lambda n: n["gradient_subject"] > 2 * n["gradient_control"],
        gradient_control=lambda n: n["gradient_control"] > 1,
        gradient_other=lambda n: n["gradient_other"] > 2 * n["gradient_control"],
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = memorization.measure(subject="none", control="none", other="none").claims
    assert not any(claim.holds for claim in claims)
