"""Topic `silent-acceptance`: a validator by class name accepts what breaks the bound."""

import pytest
from torch import nn

from dpnorm.explain import coupling, silent_acceptance
from tests.explain.inequalities import assert_every_number

MIXING = ("affine_free", "frozen_affine", "functional", "by_hand", "loss")


@pytest.fixture(scope="module")
def measured():
    return silent_acceptance.measure()


def test_every_number_carries_the_argument(measured):
    claimed = coupling.measure().numbers["claimed"]  # dpnorm's own account of the same step
    names = [*MIXING, "instance", "control"]
    same = {
        f"epsilon_{name}": lambda n, name=name: n[f"epsilon_{name}"] == pytest.approx(claimed)
        for name in names
    }
    moved = {f"shift_{name}": lambda n, name=name: n[f"shift_{name}"] > 1.5 for name in MIXING}
    assert_every_number(
        "silent-acceptance",
        measured,
        **same,
        **moved,
        shift_instance=lambda n: n["shift_instance"] <= 1 + 1e-5,  # its state is what moves
        shift_control=lambda n: 0 < n["shift_control"] <= 1 + 1e-5,
        exact_affine_free=lambda n: n["exact_affine_free"] > claimed,
    )
    assert all(claim.holds for claim in measured.claims)


def test_words_say_what_moves_and_what_check_says(measured):
    told = measured.settings
    moves = {name: told[f"state_{name}"] for name in (*MIXING, "instance", "control")}
    assert [name for name, word in moves.items() if word == "yes"] == [
        "affine_free", "frozen_affine", "instance",
    ]  # fmt: skip
    assert {told[f"verdict_{name}"] for name in (*MIXING, "instance")} == {"refuted"}
    assert told["verdict_control"] == "proven"


def test_the_opposite_planted_is_seen():
    claims = silent_acceptance.measure(layer=lambda: nn.GroupNorm(4, 16)).claims
    assert [claim.holds for claim in claims] == [True, False, False, True]
