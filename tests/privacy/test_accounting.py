import importlib
import math
import subprocess
import sys

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier
from scipy.stats import norm

from dpnorm.errors import InputError
from dpnorm.privacy import ACCOUNTANTS, PrivacyConfig, epsilon_spent, noise_for
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.history import gaussian_bound, grouped, merged

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


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), GRID)
def test_pld_is_the_privacy_loss_distribution_and_the_least_of_the_accountants(
    q, sigma, steps, delta
):
    spent = {
        name: epsilon_of([(sigma, q, steps)], delta=delta, accountant=name) for name in ACCOUNTANTS
    }
    assert spent["pld"] == pytest.approx(pld_epsilon(q, sigma, steps, delta), abs=1e-3)
    assert spent["pld"] <= spent["prv"] + 1e-3 <= spent["pld"] + 0.02
    assert spent["pld"] <= spent["rdp"]


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "tight", "renyi"),
    [
        (0.01, 1.0, 1000, 1.828, 2.101),
        (0.05, 1.5, 400, 3.36, 3.689),
        (0.004, 0.8, 5000, 2.499, 2.925),
    ],
)
def test_the_accountants_have_the_values_that_are_known(q, sigma, steps, tight, renyi):
    for accountant, known in [("pld", tight), ("rdp", renyi), ("prv", tight + 0.01)]:
        spent = epsilon_of([(sigma, q, steps)], delta=1e-5, accountant=accountant)
        assert spent == pytest.approx(known, abs=1e-3)


@pytest.mark.parametrize(
    ("accountant", "epsilon"),
    [
        *[(name, e) for name in ("prv", "rdp") for e in (0.5, 1.0, 3.0, 8.0)],
        *[("pld", e) for e in (0.05, 0.5, 3.0)],
        pytest.param("pld", 8.0, marks=pytest.mark.slow),
        *[pytest.param(name, 30.0, marks=pytest.mark.slow) for name in ACCOUNTANTS],
    ],
)
def test_calibrated_noise_spends_the_budget_and_no_more(epsilon, accountant):
    setting = {"sampling_rate": 0.1, "steps": 100, "delta": 1e-5, "accountant": accountant}
    noise = noise_for(epsilon=epsilon, **setting)
    spent = epsilon_spent(noise_multiplier=noise, **setting)
    assert epsilon - 0.02 <= spent <= epsilon


def test_an_unreachable_epsilon_says_what_would_be_reached():
    with pytest.raises(InputError, match="epsilon 1e-06 cannot be reached: 100 steps"):
        noise_for(epsilon=1e-6, sampling_rate=0.1, steps=100, delta=1e-5, accountant="prv")


def test_pld_calibrates_an_epsilon_that_is_too_small_for_prv():
    setting = {"sampling_rate": 0.1, "steps": 10, "delta": 1e-5, "accountant": "pld"}
    noise = noise_for(epsilon=0.005, **setting)
    assert 0.0049 <= epsilon_spent(noise_multiplier=noise, **setting) <= 0.005


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_a_release_without_noise_has_no_epsilon(accountant):
    history = [(1.0, 0.1, 10), (0.0, 0.1, 1)]
    assert epsilon_of(history, delta=1e-5, accountant=accountant) == math.inf
    assert epsilon_of([(0.0, 0.1, 0)], delta=1e-5, accountant=accountant) == 0
    assert epsilon_of([(math.inf, 0.1, 9)], delta=1e-5, accountant=accountant) == 0


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta"),
    [
        (0.3, 0.05, 1000, 1e-5),  # losses that overflow prv
        (0.1, 1e-4, 10, 1e-5),  # and pld
        (0.1, 1e-160, 10, 1e-5),
        (0.3, 2.0, 20_000, 1e-5),  # prv would need 35 million points
        (0.01, 1.0, 100, 1e-14),  # below what prv's floating point can resolve
    ],
)
def test_where_an_accountant_overflows_epsilon_is_an_upper_bound_all_the_same(
    q, sigma, steps, delta, accountant
):
    spent = epsilon_of([(sigma, q, steps)], delta=delta, accountant=accountant)
    # one step, with and without a record, above 1: at least q / 2, and the tail of the noise
    assert spent >= math.log(q / 2 - delta) - norm.logsf(min(1 / sigma, 1e150))
    assert 0 < spent <= gaussian_bound([(sigma, q, steps)], delta)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_the_order_of_runs_and_how_they_are_cut_do_not_matter(accountant):
    runs = [(1.0, 0.01, 100), (2.0, 0.02, 50)]
    cut = [(2.0, 0.02, 20), (1.0, 0.01, 60), (2.0, 0.02, 30), (1.0, 0.01, 40)]
    assert epsilon_of(cut, delta=1e-5, accountant=accountant) == pytest.approx(
        epsilon_of(runs, delta=1e-5, accountant=accountant), abs=1e-6
    )


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_a_schedule_lies_between_its_noisiest_and_its_least_noisy_step(accountant):
    schedule = [(float(s), 0.01, 5) for s in np.geomspace(2, 1.5, 12)]
    noisy, least = (
        epsilon_of([(s, 0.01, 60)], delta=1e-5, accountant=accountant) for s in (2.0, 1.5)
    )
    assert noisy < epsilon_of(schedule, delta=1e-5, accountant=accountant) < least


@pytest.mark.slow
@pytest.mark.parametrize("accountant", ["prv", "pld"])
def test_grouping_a_long_schedule_costs_little_and_never_claims_less(accountant):
    schedule = [(float(s), 0.01, 5) for s in np.geomspace(4, 1, 200)]
    exact = 0.8799  # by pld at 1e-4, all 200 runs apart
    assert exact <= epsilon_of(schedule, delta=1e-5, accountant=accountant) <= exact + 0.025


runs = st.tuples(st.floats(0.3, 30), st.floats(1e-4, 0.999), st.integers(1, 50))


@given(st.lists(runs, min_size=1, max_size=60))
def test_grouped_runs_are_fewer_and_each_at_most_as_private(history):
    history = merged(history)
    result = grouped(history, most=10)
    assert len(result) <= 10
    assert sum(run[2] for run in result) == sum(run[2] for run in history)
    for noise, rate, steps in history:
        assert any(n <= noise and r >= rate and s >= steps for n, r, s in result)


def test_runs_without_subsampling_are_one_gaussian():
    assert merged([(3.0, 1.0, 2), (4.0, 1.0, 1), (4.0, 0.5, 1), (4.0, 0.5, 2), (1.0, 0.0, 9)]) == [
        (4.0, 0.5, 3),
        (pytest.approx((2 / 9 + 1 / 16) ** -0.5), 1.0, 1),
    ]


@pytest.mark.parametrize("run", [(-1.0, 0.1, 1), (math.nan, 0.1, 1), (1.0, 1.5, 1), (1.0, 0.1, -1)])
def test_an_impossible_run_is_one_clear_error(run):
    with pytest.raises(InputError, match="a history has the run"):
        epsilon_of([run], delta=1e-5, accountant="prv")


def test_an_unknown_accountant_or_delta_is_one_clear_error():
    with pytest.raises(InputError, match="unknown accountant 'gdp': allowed are prv, rdp, pld"):
        epsilon_of([(1.0, 0.1, 1)], delta=1e-5, accountant="gdp")
    with pytest.raises(InputError, match="delta is 0"):
        epsilon_of([(1.0, 0.1, 1)], delta=0.0, accountant="prv")


def test_opacus_knows_pld_and_keeps_its_history():
    book = create_accountant("pld")
    for _ in range(3):
        book.step(noise_multiplier=1.0, sample_rate=0.1)
    book.step(noise_multiplier=2.0, sample_rate=0.1)
    assert book.history == [(1.0, 0.1, 3), (2.0, 0.1, 1)]
    assert len(book) == 2
    other = create_accountant("pld")
    other.load_state_dict(book.state_dict())
    spent = epsilon_of(book.history, delta=1e-5, accountant="pld")
    assert other.get_epsilon(delta=1e-5) == spent > 0
    noise = get_noise_multiplier(
        target_epsilon=0.5,
        target_delta=1e-5,
        sample_rate=0.1,
        steps=10,
        accountant="pld",
        epsilon_tolerance=0.1,
    )
    assert epsilon_of([(noise, 0.1, 10)], delta=1e-5, accountant="pld") == pytest.approx(
        0.5, abs=0.11
    )


def test_a_training_can_be_configured_with_each_accountant():
    for name in ACCOUNTANTS:
        assert PrivacyConfig(epsilon=1, accountant=name).accountant == name


def test_importing_the_accountant_again_is_no_error():
    from dpnorm.privacy import pld as module

    importlib.reload(module)
    assert create_accountant("pld").mechanism() == "pld"


@pytest.mark.slow
def test_importing_dpnorm_does_not_import_dp_accounting():
    code = "import sys, dpnorm.privacy; print('dp_accounting' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


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


def test_prv_gives_way_where_delta_is_as_small_as_its_rounding():
    """Opacus's own says 2.0723 here; losses rounded down, and hence a lower bound, say 2.111."""
    setting = {"noise_multiplier": 0.7, "sampling_rate": 1e-4, "steps": 100_000, "delta": 1e-12}
    assert epsilon_spent(**setting, accountant="prv") >= 2.111


def test_epsilon_is_never_below_0():
    for accountant in ("prv", "rdp", "pld"):
        spent = epsilon_spent(
            noise_multiplier=5.0, sampling_rate=0.01, steps=1, delta=0.5, accountant=accountant
        )
        assert spent >= 0
