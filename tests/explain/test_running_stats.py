"""Topic `running-stats`: published buffers tell who was in the data, with no gradient at all."""

import pytest
import torch

from dpnorm.explain import running_stats
from dpnorm.explain.pair import Pair
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return running_stats.measure()


def test_every_number_carries_the_argument(measured):
    # fixed seeds; each of the intervals misses with probability 0.001 over seeds
    assert_every_number(
        "running-stats",
        measured,
        outlier_subject=lambda n: n["outlier_subject"].low > 0.8,
        outlier_control=lambda n: n["outlier_control"].low <= 0.5 <= n["outlier_control"].high,
        digit_subject=lambda n: n["digit_subject"].high < n["outlier_subject"].low,
        digit_control=lambda n: n["digit_control"].low <= 0.5 <= n["digit_control"].high,
        factor_subject=lambda n: n["factor_subject"] > 1.1,
        factor_control=lambda n: n["factor_control"] == 1,
    )
    assert all(claim.holds for claim in measured.claims)


@pytest.mark.parametrize("safe", ["frozen", "group"])
def test_the_opposite_planted_is_seen(safe):
    claims = running_stats.measure(subject=safe, control="batch").claims
    assert not any(claim.holds for claim in claims)


def test_nothing_but_the_normalization_moves():
    pair = Pair("batch")
    before = {name: value.clone() for name, value in pair.network.state_dict().items()}
    layer = running_stats._Layer(pair, pair.another)
    assert not (layer.published(True) == layer.published(False)).all()
    after = pair.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
