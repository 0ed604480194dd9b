import math

import dp_accounting
import pytest
from dp_accounting import pld
from hypothesis import given
from hypothesis import strategies as st

from dpnorm.errors import InputError
from dpnorm.privacy.accounting import epsilon_of, epsilon_spent
from dpnorm.privacy.joint import joint_noise, split_noise
from tests.privacy.integration import axis, epsilon_of_densities, mixture

GRID = [  # sampling rate, noise of the gradients, noise of each statistic, statistics, steps
    (0.01, 1.0, 4.0, 1, 1000),
    (0.01, 1.0, 4.0, 4, 1000),
    (0.01, 1.0, 2.0, 4, 1000),
    (0.01, 1.0, 1.0, 4, 1000),
    (0.01, 2.0, 2.0, 1, 3000),
    (0.05, 1.5, 6.0, 1, 400),
    (0.05, 2.0, 3.0, 2, 200),
    (0.004, 0.8, 3.2, 1, 5000),
    (0.004, 1.0, 8.0, 1, 500),
    (0.2, 8.0, 8.0, 1, 60),
    (0.2, 5.0, 20.0, 3, 100),
    (0.5, 6.0, 12.0, 1, 20),
    (1.0, 20.0, 80.0, 1, 10),
    (1.0, 5.0, 10.0, 2, 1),
]
sigmas = st.floats(1e-3, 1e3)


def pld_epsilon(q, sigma, steps, delta=1e-5):
    accountant = pld.PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4
    )
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    return accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps)).get_epsilon(delta)


@pytest.mark.parametrize(("q", "gradient", "statistic", "k", "steps"), GRID)
def test_the_joint_account_agrees_with_the_privacy_loss_distribution(
    q, gradient, statistic, k, steps
):
    sigma = joint_noise(gradient, *[statistic] * k)
    assert sigma == pytest.approx((gradient**-2 + k * statistic**-2) ** -0.5)
    claimed = epsilon_spent(
        noise_multiplier=sigma, sampling_rate=q, steps=steps, delta=1e-5, accountant="prv"
    )
    tight = pld_epsilon(q, sigma, steps)
    assert tight - 1e-3 <= claimed <= tight + 0.02


@pytest.mark.parametrize(
    ("statistic", "k", "joint", "separate"),
    [(4.0, 4, 2.36, 1.95), (2.0, 4, 4.49, 2.30), (1.0, 4, 19.25, 4.21), (4.0, 1, 1.951, None)],
)
def test_the_joint_account_has_the_values_that_are_known(statistic, k, joint, separate):
    together = [(joint_noise(1.0, *[statistic] * k), 0.01, 1000)]
    assert epsilon_of(together, delta=1e-5, accountant="prv") == pytest.approx(joint, abs=0.02)
    if separate is not None:
        apart = [(1.0, 0.01, 1000), (statistic, 0.01, k * 1000)]
        assert epsilon_of(apart, delta=1e-5, accountant="prv") == pytest.approx(separate, abs=0.02)


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize(
    ("q", "gradient", "statistic"),
    [(0.01, 0.6, 0.8), (0.1, 1.0, 4.0), (0.3, 2.0, 1.5), (0.9, 3.0, 3.0), (1.0, 1.5, 6.0)],
)
def test_the_joint_account_is_what_integrating_both_releases_gives(q, gradient, statistic, delta):
    noise = (gradient, statistic)
    axes = [axis(gradient), axis(statistic)]
    without = mixture(axes, [(0, 0)], [1.0], noise)
    record = mixture(axes, [(0, 0), (1, 1)], [1 - q, q], noise)
    true = epsilon_of_densities(record, without, axes, delta)
    setting = {"noise_multiplier": joint_noise(*noise), "sampling_rate": q, "steps": 1}
    tight = epsilon_spent(**setting, delta=delta, accountant="pld")
    assert tight == pytest.approx(true, abs=1e-3)
    assert true - 1e-4 <= epsilon_spent(**setting, delta=delta, accountant="prv") <= true + 0.02


@pytest.mark.parametrize("accountant", ["prv", "rdp", "pld"])
@pytest.mark.parametrize(
    ("q", "statistic", "k", "steps", "margin"),
    [(0.01, 2.0, 4, 1000, 2.0), (0.01, 4.0, 4, 1000, 0.35), (0.2, 5.0, 1, 20, 0.06)],
)
def test_statistics_accounted_as_steps_of_their_own_report_too_little(
    q, statistic, k, steps, margin, accountant
):
    gradient = 1.0 if q < 0.1 else 4.0
    apart = [(gradient, q, steps), *[(statistic, q, steps)] * k]
    together = [(joint_noise(gradient, *[statistic] * k), q, steps)]
    too_little = epsilon_of(apart, delta=1e-5, accountant=accountant)
    assert too_little + margin < epsilon_of(together, delta=1e-5, accountant=accountant)


@pytest.mark.parametrize("accountant", ["prv", "rdp", "pld"])
def test_without_subsampling_separate_steps_cost_the_same(accountant):
    apart = [(20.0, 1.0, 10), (40.0, 1.0, 10)]
    together = [(joint_noise(20.0, 40.0), 1.0, 10)]
    assert epsilon_of(apart, delta=1e-5, accountant=accountant) == pytest.approx(
        epsilon_of(together, delta=1e-5, accountant=accountant), rel=1e-6
    )


@given(total=sigmas, ratio=sigmas)
def test_split_noise_is_undone_by_joint_noise_and_keeps_the_ratio(total, ratio):
    gradient, statistics = split_noise(total, ratio)
    assert joint_noise(gradient, statistics) == pytest.approx(total)
    assert statistics / gradient == pytest.approx(ratio)
    assert gradient >= total
    assert gradient == pytest.approx(total * math.sqrt(1 + 1 / ratio**2))
    assert statistics == pytest.approx(total * math.sqrt(1 + ratio**2))


@given(noises=st.lists(sigmas, min_size=1, max_size=6))
def test_a_joint_release_costs_more_than_each_alone(noises):
    assert joint_noise(*noises) <= min(noises) * (1 + 1e-12)
    assert joint_noise(*noises, math.inf) == joint_noise(*noises)
    assert joint_noise(*noises, 0.0) == 0.0


def test_what_releases_nothing_and_what_has_no_noise():
    assert joint_noise(math.inf, math.inf) == math.inf
    assert joint_noise(0.0, math.inf) == 0.0
    assert joint_noise(1e-200, 1e-200) == pytest.approx(1e-200 / math.sqrt(2))
    assert split_noise(0.0, 4.0) == (0.0, 0.0)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_ratio_is_one_clear_error(ratio):
    with pytest.raises(InputError, match="should be greater than 0 and finite"):
        split_noise(1.0, ratio)


@pytest.mark.parametrize("total", [-1.0, math.inf, math.nan])
def test_an_impossible_noise_is_one_clear_error(total):
    with pytest.raises(InputError, match=r"noise multiplier is .* at least 0"):
        split_noise(total, 1.0)
    if total != math.inf:
        with pytest.raises(InputError, match=r"noise multiplier is .* at least 0"):
            joint_noise(1.0, total)
    with pytest.raises(InputError, match="at least one release"):
        joint_noise()
