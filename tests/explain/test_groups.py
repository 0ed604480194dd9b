"""Topic `groups`: wide groups and matched moments keep what a network has learned."""

import pytest

from dpnorm.explain import groups
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return groups.measure()


def test_every_number_carries_the_argument(measured):
    assert_every_number(
        "groups",
        measured,
        accuracy_batch=lambda n: n["accuracy_batch"] > 0.9,
        match_wide=lambda n: n["match_wide"] > n["accuracy_batch"] - 0.1,
        match_whole=lambda n: n["match_whole"] > n["accuracy_batch"] - 0.1,
        match_narrow=lambda n: n["reset_narrow"] < n["match_narrow"] < n["match_wide"],
        reset_narrow=lambda n: n["reset_narrow"] < n["match_narrow"] - 0.1,
        reset_wide=lambda n: n["reset_wide"] < n["match_wide"] - 0.3,
        reset_whole=lambda n: n["reset_whole"] < n["match_whole"] - 0.3,
        values_single=lambda n: n["values_single"] == 1,
        values_pairs=lambda n: n["values_pairs"] == 2,
        values_whole=lambda n: n["values_whole"] > 4,
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = groups.measure(init="reset").claims
    assert [claim.holds for claim in claims] == [False, False, False, True, True]


def test_the_narrow_groups_are_those_of_opacus():
    from opacus.validators import ModuleValidator
    from torch import nn

    for channels in (3, 16, 32, 48, 64):
        fixed = ModuleValidator.fix(nn.Sequential(nn.BatchNorm2d(channels)))
        assert fixed[0].num_groups == groups._as_opacus(channels)
