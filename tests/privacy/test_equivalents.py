import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, norm

from dpnorm.errors import InputError
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.equivalents import group_epsilon, substitution_epsilon
from tests.privacy.integration import axis, epsilon_of_densities, hockey_stick, mixture

losses = pld.privacy_loss_distribution
HISTORIES = [
    [(1.0, 0.01, 1000)],
    [(0.8, 0.004, 5000)],
    [(20.0, 1.0, 10)],
    [(1.5, 0.05, 100), (2.0, 0.1, 50), (8.0, 1.0, 3)],
]
moves = st.floats(-1, 1)


def gaussian_epsilon(distance, delta):
    """The analytic Gaussian mechanism (Balle and Wang, arXiv 1805.06530, theorem 5)."""

    def spent(e):
        term = norm.logcdf(-distance / 2 - e / distance)
        return norm.cdf(distance / 2 - e / distance) - math.exp(e + term) - delta

    return brentq(spent, 0, 500, xtol=1e-9)


def on_a_line(points, centres, weights, sigma):
    return mixture([points], np.reshape(centres, (-1, 1)), weights, [sigma])


@pytest.mark.parametrize("history", HISTORIES)
def test_a_group_of_one_is_an_ordinary_record(history):
    assert group_epsilon(history, 1, delta=1e-5) == pytest.approx(
        epsilon_of(history, delta=1e-5, accountant="pld"), abs=1e-4
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_without_subsampling_a_group_is_a_gaussian_of_sensitivity_k(k):
    assert group_epsilon([(20.0, 1.0, 10)], k, delta=1e-5) == pytest.approx(
        gaussian_epsilon(k * math.sqrt(10) / 20, 1e-5), abs=1e-4
    )


def test_without_subsampling_a_replaced_record_is_a_gaussian_of_sensitivity_2():
    assert substitution_epsilon([(20.0, 1.0, 10)], delta=1e-5) == pytest.approx(
        gaussian_epsilon(2 * math.sqrt(10) / 20, 1e-5), abs=1e-4
    )


@pytest.mark.parametrize("delta", [1e-6, 1e-3])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.5), (0.1, 1.0), (0.5, 3.0), (0.95, 2.0)])
def test_a_group_is_what_integrating_one_step_gives(q, sigma, k, delta):
    x = axis(sigma, reach=k, points=60_001)
    group = on_a_line(x, range(k + 1), binom.pmf(range(k + 1), k, q), sigma)
    true = epsilon_of_densities(group, on_a_line(x, [0], [1.0], sigma), [x], delta)
    assert group_epsilon([(sigma, q, 1)], k, delta) == pytest.approx(true, abs=1e-4)


@pytest.mark.parametrize("delta", [1e-6, 1e-3])
@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.5), (0.1, 1.0), (0.5, 3.0), (0.95, 2.0)])
def test_a_replaced_record_is_what_integrating_one_step_of_opposites_gives(q, sigma, delta):
    x = axis(sigma, points=60_001)
    before, after = (on_a_line(x, [0, move], [1 - q, q], sigma) for move in (1, -1))
    true = epsilon_of_densities(before, after, [x], delta)
    claimed = substitution_epsilon([(sigma, q, 1)], delta)
    assert true - 1e-6 <= claimed <= true + 1e-4


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    pair=st.tuples(moves, moves, moves, moves),
    q=st.sampled_from([0.02, 0.5]),
    sigma=st.sampled_from([0.7, 2.0]),
)
def test_no_pair_of_records_costs_more_than_opposites(pair, q, sigma):
    # one step whose sum has two entries, and two steps that each have one
    delta = 1e-3
    x = np.array(pair[:2]) / max(1, math.hypot(*pair[:2]))
    y = np.array(pair[2:]) / max(1, math.hypot(*pair[2:]))
    axes = [axis(sigma, points=251)] * 2
    plane = [mixture(axes, [(0, 0), move], [1 - q, q], [sigma] * 2) for move in (x, y)]
    claimed = substitution_epsilon([(sigma, q, 1)], delta)
    assert hockey_stick(*plane, axes, claimed) <= delta * 1.01
    first, second = [
        np.outer(*[on_a_line(axes[0], [0, move], [1 - q, q], sigma) for move in moves])
        for moves in (pair[:2], pair[2:])
    ]
    claimed = substitution_epsilon([(sigma, q, 2)], delta)
    assert hockey_stick(first, second, axes, claimed) <= delta * 1.01


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    group=st.tuples(moves, moves, moves, moves),
    q=st.sampled_from([0.02, 0.5]),
    sigma=st.sampled_from([0.7, 2.0]),
)
def test_no_group_of_two_costs_more_than_one_of_equals(group, q, sigma):
    delta = 1e-3
    x = axis(sigma, reach=2, points=301)
    weights = [(1 - q) ** 2, q * (1 - q), q * (1 - q), q * q]
    steps = [on_a_line(x, [0, a, b, a + b], weights, sigma) for a, b in (group[:2], group[2:])]
    nothing = on_a_line(x, [0], [1.0], sigma)
    claimed = group_epsilon([(sigma, q, 2)], 2, delta)
    p, none = np.outer(*steps), np.outer(nothing, nothing)
    assert hockey_stick(p, none, [x, x], claimed) <= delta * 1.01


@pytest.mark.parametrize(
    "history", [[(1.0, 0.01, 1000)], [(1.5, 0.05, 400)], [(20.0, 1.0, 10)], [(5.0, 0.2, 100)]]
)
def test_replacing_lies_between_one_record_and_removing_then_adding(history):
    # an (e, d) guarantee for one record gives (2 e, (1 + exp(e)) d) for two moves in a row
    ((sigma, q, steps),) = history
    one = losses.from_gaussian_mechanism(sigma, sampling_prob=q).self_compose(steps)

    def total(log_d):
        d = math.exp(log_d)
        return math.log1p(math.exp(one.get_epsilon_for_delta(d))) + log_d - math.log(1e-5)

    two_moves = 2 * one.get_epsilon_for_delta(math.exp(brentq(total, math.log(1e-10), -11.6)))
    claimed = substitution_epsilon(history, delta=1e-5)
    assert one.get_epsilon_for_delta(1e-5) < claimed < two_moves
    assert claimed <= group_epsilon(history, 2, delta=1e-5) + 1e-4


@pytest.mark.skipif(
    not hasattr(pld.privacy_loss_mechanism.AdjacencyType, "REPLACE"), reason="dp-accounting 0.5"
)
@pytest.mark.parametrize(("sigma", "q", "steps"), [(1.0, 0.01, 1000), (1.5, 0.05, 400)])
def test_replacing_agrees_with_the_distribution_of_dp_accounting(sigma, q, steps):
    one = losses.from_gaussian_mechanism(
        sigma,
        sampling_prob=q,
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE,
    )
    theirs = one.self_compose(steps).get_epsilon_for_delta(1e-5)
    assert substitution_epsilon([(sigma, q, steps)], 1e-5) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    "k", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_group_agrees_with_the_mixture_of_gaussians_of_dp_accounting(k):
    one = losses.from_mixture_gaussian_mechanism(
        1.0,
        list(range(k + 1)),
        binom.pmf(range(k + 1), k, 0.01),
        value_discretization_interval=1e-3,
    )
    theirs = one.self_compose(1000).get_epsilon_for_delta(1e-5)
    assert group_epsilon([(1.0, 0.01, 1000)], k, 1e-5) == pytest.approx(theirs, abs=2e-3)


def test_a_group_costs_less_than_the_rule_for_any_mechanism_says():
    # (e, d) for one record is (2 e, (1 + exp(e)) d) for two
    one = losses.from_gaussian_mechanism(1.0, sampling_prob=0.01).self_compose(1000)
    epsilon = group_epsilon([(1.0, 0.01, 1000)], 2, delta=1e-5)
    assert math.log1p(math.exp(epsilon / 2)) + math.log(
        one.get_delta_for_epsilon(epsilon / 2)
    ) > math.log(1e-5)
    assert epsilon > epsilon_of([(1.0, 0.01, 1000)], delta=1e-5, accountant="pld")


def test_a_history_may_change_its_noise_at_every_step():
    schedule = [(float(s), 0.01, 5) for s in np.geomspace(4, 1, 30)]
    for spent in (substitution_epsilon, lambda h, delta: group_epsilon(h, 2, delta)):
        bounds = [spent([(s, 0.01, 150)], delta=1e-5) for s in (4.0, 1.0)]
        assert bounds[0] < spent(schedule, delta=1e-5) < bounds[1]


def test_the_ends_of_the_range():
    assert substitution_epsilon([], delta=1e-5) == group_epsilon([], 3, delta=1e-5) == 0
    assert substitution_epsilon([(0.0, 0.1, 1)], delta=1e-5) == math.inf
    assert group_epsilon([(0.0, 0.1, 1)], 2, delta=1e-5) == math.inf
    assert 1e3 < substitution_epsilon([(0.01, 0.1, 10)], delta=1e-5) < math.inf
    with pytest.raises(InputError, match="group of 0 records"):
        group_epsilon([(1.0, 0.1, 1)], 0, delta=1e-5)
    with pytest.raises(InputError, match="delta is 1"):
        substitution_epsilon([(1.0, 0.1, 1)], delta=1.0)
