"""Topic `coupling`: each number carries the argument, and the opposite would be seen."""

import pytest
import torch
from torch import nn

from dpnorm.detection import sensitivity
from dpnorm.explain import coupling
from dpnorm.explain.pair import RECORDS, Pair, clipped_sum
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return coupling.measure()


def test_every_number_carries_the_argument(measured):
    assert_every_number(
        "coupling",
        measured,
        activation_subject=lambda n: n["activation_subject"] > 0.1,
        activation_control=lambda n: n["activation_control"] == 0,
        gradient_subject=lambda n: n["gradient_subject"] > 0.1,
        gradient_control=lambda n: n["gradient_control"] <= 1e-5,
        shift_subject=lambda n: n["shift_subject"] > 2,
        shift_control=lambda n: 0 < n["shift_control"] <= 1 + 1e-5,
        epsilon_subject=lambda n: n["epsilon_subject"] > n["claimed"],
        epsilon_control=lambda n: n["epsilon_control"] <= n["claimed"],
        claimed=lambda n: 0 < n["claimed"] < n["epsilon_control"] * 1.05,  # a bound, and not loose
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = coupling.measure(subject="group").claims
    assert [claim.holds for claim in claims] == [False, True, False, True, False, True]
    claims = coupling.measure(control="batch").claims
    assert [claim.holds for claim in claims] == [True, False, True, False, True, False]


def test_gradients_with_group_normalization_are_those_of_each_record_alone():
    pair = Pair("group")
    parameters = list(pair.network.parameters())
    for index, row in ((0, pair.gradients(RECORDS)[0]), (RECORDS, pair.gradients(RECORDS + 1)[-1])):
        one = slice(index, index + 1)
        loss = nn.functional.cross_entropy(pair.network(pair.x[one]), pair.y[one])
        own = torch.autograd.grad(loss, parameters)
        expected = float(torch.cat([g.flatten() for g in own]).norm())
        assert float(row.norm()) == pytest.approx(expected, rel=1e-4)


def test_gradients_with_batch_normalization_are_each_row_of_the_gradient_of_the_batch():
    pair = Pair("batch")
    rows = pair.gradients(RECORDS)
    loss = nn.functional.cross_entropy(pair.network(pair.x[:RECORDS]), pair.y[:RECORDS])
    whole = torch.autograd.grad(loss, list(pair.network.parameters()))
    # The order of the parameters is that of the modules' calls; a norm does not mind it.
    expected = float(torch.cat([g.flatten() for g in whole]).norm())
    assert float(rows.sum(0).norm()) / RECORDS == pytest.approx(expected, rel=1e-4)


def test_sensitivity_finds_a_record_that_moves_the_sum_even_more(measured):
    pair = Pair("batch")
    found = sensitivity(
        pair.network, pair.x[:RECORDS], pair.y[:RECORDS], nn.functional.cross_entropy
    )
    assert found.ratio > measured.numbers["shift_subject"] > 1


def test_a_clipped_sum_holds_no_longer_gradient():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    assert clipped_sum(rows, clip=1.0).tolist() == pytest.approx([0.9, 1.2])
