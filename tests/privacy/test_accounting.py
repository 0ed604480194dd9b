import math

import dp_accounting
import pytest
from dp_accounting import pld

from dpnorm.errors import InputError
from dpnorm.privacy import PrivacyConfig, epsilon_spent, noise_for

GRID = [  # sampling rate, noise multiplier, steps, delta
    (0.01, 1.0, 1000, 1e-5),
    (0.05, 1.5, 400, 1e-5),
    (0.004, 0.8, 5000, 1e-5),
    (0.2, 7.0, 60, 1e-4),
    (1.0, 20.0, 10, 1e-5),
]


def pld_epsilon(q: float, sigma: float, steps: int, delta: float) -> float:
    accountant = pld.PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4
    )
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), GRID)
def test_epsilon_is_an_upper_bound_within_002_of_the_privacy_loss_distribution(
    q, sigma, steps, delta
):
    arguments = {"noise_multiplier": sigma, "sampling_rate": q, "steps": steps, "delta": delta}
    tight = pld_epsilon(q, sigma, steps, delta)
    claimed = epsilon_spent(**arguments, accountant="prv")
    assert tight - 1e-3 <= claimed <= tight + 0.02
    assert epsilon_spent(**arguments, accountant="rdp") >= claimed - 0.02


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0, 30.0])
@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_calibrated_noise_spends_the_budget_and_no_more(epsilon, accountant):
    setting = {"sampling_rate": 0.1, "steps": 100, "delta": 1e-5, "accountant": accountant}
    noise = noise_for(epsilon=epsilon, **setting)
    spent = epsilon_spent(noise_multiplier=noise, **setting)
    assert epsilon - 0.02 <= spent <= epsilon


def test_an_unreachable_epsilon_says_what_would_be_reached():
    with pytest.raises(InputError, match="epsilon 1e-06 cannot be reached: 100 steps"):
        noise_for(epsilon=1e-6, sampling_rate=0.1, steps=100, delta=1e-5, accountant="prv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of epsilon and noise_multiplier"),
        ({"epsilon": 1, "noise_multiplier": 1}, "exactly one of"),
        ({"epsilon": math.inf}, "pass privacy=None"),
        ({"epsilon": 0}, "epsilon is 0: it should be greater than 0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"noise_multiplier": 0}, "greater than 0"),
        ({"epsilon": 1, "clip": -1}, "clip is -1"),
        ({"epsilon": 1, "delta": 1}, "delta is 1"),
        ({"epsilon": 1, "detla": 1e-5}, "unknown key 'detla': .* did you mean 'delta'"),
    ],
)
def test_wrong_settings_are_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        PrivacyConfig(**arguments)
