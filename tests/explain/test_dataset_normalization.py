"""Topic `dataset-normalization`: own moments break the guarantee, and what private ones cost."""

import pytest

from dpnorm.errors import InputError
from dpnorm.explain import coupling, dataset_normalization
from dpnorm.explain.dataset_normalization import CONSTANTS, OWN
from tests.explain.inequalities import assert_every_number


@pytest.fixture(scope="module")
def measured():
    return dataset_normalization.measure()


def test_every_number_carries_the_argument(measured):
    assert_every_number(
        "dataset-normalization",
        measured,
        claimed=lambda n: n["claimed"] == pytest.approx(coupling.measure().numbers["claimed"]),
        shift_subject=lambda n: n["shift_subject"] > 2,
        shift_control=lambda n: n["shift_control"] <= 1 + 1e-5,
        shift_private=lambda n: n["shift_private"] <= 1 + 1e-5,
        epsilon_subject=lambda n: n["epsilon_subject"] > n["claimed"],
        epsilon_control=lambda n: n["epsilon_control"] <= n["claimed"],
        epsilon_private=lambda n: n["epsilon_private"] <= n["claimed"],
        brightness=lambda n: abs(n["brightness"] - 0.5) > 0.1,  # no other record's
        recovered=lambda n: n["recovered"] == pytest.approx(n["brightness"], abs=1e-6),
        mean_error=lambda n: 0 < n["mean_error"] < 0.05,
        std_error=lambda n: 0 < n["std_error"] < 0.05,
        epsilon_training=lambda n: 0 < n["epsilon_training"] < 10,
        epsilon_together=lambda n: 1 < n["epsilon_together"] / n["epsilon_training"] < 1.05,
    )
    assert all(claim.holds for claim in measured.claims)


def test_the_opposite_planted_is_seen():
    claims = dataset_normalization.measure(subject=CONSTANTS, control=OWN).claims
    assert [claim.holds for claim in claims] == [False, False, True, False, False, True, True]


def test_a_normalization_that_is_unknown_is_named():
    with pytest.raises(InputError, match="'constants'"):
        dataset_normalization.measure(subject="constant")
