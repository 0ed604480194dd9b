import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnorm.errors import InputError
from dpnorm.leakage import GuessPlan, audit, one_run_epsilon, one_run_gaussian_epsilon


def leaky(canaries: int, seed: int, mu: float = 2.0):
    generator = np.random.default_rng([61, seed])
    members = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * members, members


@settings(max_examples=80, deadline=None)
@given(
    scores=st.lists(st.integers(0, 5), min_size=2, max_size=40),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 5),
)
def test_a_plan_guesses_the_highest_in_and_the_lowest_out(scores, shares, seed):
    highest = int(shares[0] * len(scores))
    lowest = int(shares[1] * (len(scores) - highest))
    if highest + lowest == 0:
        return
    guesses = GuessPlan(highest=highest, lowest=lowest, seed=seed).guess(scores)
    values = np.array(scores)
    assert (guesses == 1).sum() == highest
    assert (guesses == -1).sum() == lowest
    ordered = np.sort(values)
    np.testing.assert_array_equal(np.sort(values[guesses == -1]), ordered[:lowest])
    np.testing.assert_array_equal(np.sort(values[guesses == 1]), ordered[len(scores) - highest :])


def test_guessing_cannot_see_who_is_a_member():
    assert list(inspect.signature(GuessPlan.guess).parameters) == ["self", "scores"]
    with pytest.raises(AttributeError):
        GuessPlan(highest=1, lowest=1).highest = 3


def test_equal_scores_are_not_taken_in_the_order_of_the_canaries():
    # Members come first, all scores are equal: the order of the canaries would be right every
    # time. 200 right of 400 +- 10; 5 standard deviations: error probability 6e-7, seed fixed.
    members = np.arange(4000) < 2000
    guesses = GuessPlan.two_sided(4000, 0.1).guess(np.zeros(4000))
    right = (guesses == np.where(members, 1, -1)).sum()
    assert abs(right - 200) < 50
    other = GuessPlan.two_sided(4000, seed=1).guess(np.zeros(4000))
    assert (guesses != other).any()
    assert (guesses == GuessPlan.two_sided(4000).guess(np.zeros(4000))).all()


@pytest.mark.parametrize(
    ("canaries", "tenth", "fifths"), [(19, 1, 3), (100, 5, 20), (1000, 50, 200), (5000, 250, 1000)]
)
def test_the_default_guesses_a_tenth_or_two_fifths_from_both_ends(canaries, tenth, fifths):
    more = GuessPlan(highest=fifths, lowest=fifths)
    assert GuessPlan.two_sided(canaries) == GuessPlan(
        highest=tenth, lowest=tenth, alternatives=(more,)
    )
    assert GuessPlan.two_sided(canaries, 0.4) == more


def test_shares_that_are_the_same_number_of_canaries_are_one_plan():
    assert GuessPlan.two_sided(2) == GuessPlan(highest=1, lowest=1)


@pytest.mark.parametrize("method", ["one-run", "gaussian"])
@pytest.mark.parametrize("mu", [0.7, 4.0])
def test_alternatives_share_the_error_and_the_largest_bound_counts(method, mu):
    scores, members = leaky(400, 0, mu)
    plan = GuessPlan.two_sided(400, (0.1, 0.4, 0.8))
    alone = [
        audit(GuessPlan.two_sided(400, share), scores, members, delta=1e-5, method=method,
              confidence=1 - 0.06 / 3)
        for share in (0.1, 0.4, 0.8)
    ]  # fmt: skip
    bound = audit(plan, scores, members, delta=1e-5, method=method, confidence=0.94)
    best = max(alone, key=float)
    assert bound.value == best.value > 0
    assert (bound.guesses, bound.correct) == (best.guesses, best.correct)
    assert bound.ceiling == max(each.ceiling for each in alone)
    assert bound.confidence == 0.94
    assert bound.fixed == (
        "the 20 highest scores guessed in, the 20 lowest out, or 80 and 80, or 160 and 160, at 1/3 "
        "of the error each"
    )


def test_an_audit_is_the_plan_then_the_count_then_the_bound():
    scores, members = leaky(400, 0)
    plan = GuessPlan(highest=30, lowest=10)
    order = np.argsort(scores)
    correct = int(members[order[-30:]].sum() + (~members[order[:10]]).sum())
    for method, expected in (
        ("one-run", one_run_epsilon(correct, 40, 400, delta=1e-5, confidence=0.9)),
        ("gaussian", one_run_gaussian_epsilon(correct, 40, 400, delta=1e-5, confidence=0.9)),
    ):
        bound = audit(plan, scores, members, delta=1e-5, confidence=0.9, method=method)
        assert bound.value == expected.value > 0
        assert bound.standing == expected.standing
        assert bound.fixed == "the 30 highest scores guessed in, the 10 lowest out"
        assert bound.fixed in str(bound)
    flipped = audit(plan, -scores, members, delta=1e-5)
    assert flipped.value == 0


def test_scores_may_be_of_any_number_type_and_units():
    scores, members = leaky(300, 1)
    plan = GuessPlan.two_sided(300)
    base = audit(plan, scores, members, delta=1e-5).value
    assert audit(plan, 1e6 * scores + 3, members, delta=1e-5).value == base
    assert audit(plan, scores.astype(np.float32), members, delta=1e-5).value == base
    assert audit(plan, list(scores), list(members), delta=1e-5).value == base


def test_a_threshold_chosen_on_the_same_data_is_reached_only_as_a_heuristic():
    scores, members = leaky(400, 2)
    with pytest.raises(InputError, match=r"made before the scores were seen.*neither given"):
        audit(None, scores, members, delta=1e-5)
    with pytest.raises(InputError, match="both given"):
        audit(GuessPlan.two_sided(400), scores, members, delta=1e-5, heuristic="best-threshold")
    with pytest.raises(InputError, match="unknown heuristic 'best'"):
        audit(None, scores, members, delta=1e-5, heuristic="best")
    planned = audit(GuessPlan.two_sided(400), scores, members, delta=1e-5)
    for method in ("one-run", "gaussian"):
        found = audit(None, scores, members, delta=1e-5, method=method, heuristic="best-threshold")
        assert found.standing == "heuristic"
        assert found.fixed.startswith("nothing")
        assert "chosen on the data" in str(found)
        assert planned.value <= found.value <= found.ceiling


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([0.0, np.nan, 1.0, 2.0]), "1 of 4 scores are NaN or infinite"),
        (np.array([0.0, np.inf, 1.0, -np.inf]), "2 of 4 scores"),
        (np.zeros((2, 2)), r"scores are float64\[2, 2\]"),
        (np.zeros(1), "at least two canaries"),
        (np.array(["a", "b"]), "numbers"),
        (np.zeros(3), r"members are bool\[4\]; bool\[3\]"),
    ],
)
def test_wrong_scores_are_refused(scores, message):
    members = np.array([True, False, True, False])
    with pytest.raises(InputError, match=message):
        audit(GuessPlan(highest=1, lowest=1), scores, members, delta=1e-5)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (np.ones(60, dtype=bool), "60 of 60 canaries are members"),
        (np.zeros(60, dtype=bool), "0 of 60 canaries are members"),
        (np.arange(60) < 55, "55 of 60 canaries are members, which fair coins"),
        (np.arange(60) < 5, "5 of 60 canaries are members, which fair coins"),
        ((np.arange(60) % 2).astype(int), "members are int64"),
        (np.array([[True] * 60]), r"members are bool\[1, 60\]"),
    ],
)
def test_a_membership_that_fair_coins_did_not_draw_is_refused(members, message):
    for plan, heuristic in ((GuessPlan.two_sided(60), None), (None, "best-threshold")):
        with pytest.raises(InputError, match=message):
            audit(plan, np.arange(60.0), members, delta=1e-5, heuristic=heuristic)


def test_wrong_plans_methods_and_levels_are_refused():
    scores, members = leaky(60, 3)
    with pytest.raises(InputError, match="both 0"):
        GuessPlan(highest=0, lowest=0)
    with pytest.raises(InputError, match="highest is -1"):
        GuessPlan(highest=-1, lowest=2)
    with pytest.raises(InputError, match=r"lowest is 2.5"):
        GuessPlan(highest=1, lowest=2.5)
    with pytest.raises(InputError, match="alternative has alternatives"):
        GuessPlan(highest=1, lowest=1, alternatives=(GuessPlan.two_sided(100),))
    for share in (0, -0.1, 1.1, float("nan"), (), (0.1, 2)):
        with pytest.raises(InputError, match="share is"):
            GuessPlan.two_sided(100, share)
    with pytest.raises(InputError, match="canaries is 1"):
        GuessPlan.two_sided(1)
    with pytest.raises(InputError, match="40 highest and 40 lowest of 60 scores"):
        audit(GuessPlan(highest=40, lowest=40), scores, members, delta=1e-5)
    with pytest.raises(InputError, match=r"unknown method 'gausian'.*did you mean 'gaussian'"):
        audit(GuessPlan.two_sided(60), scores, members, delta=1e-5, method="gausian")
    with pytest.raises(InputError, match=r"delta is 1.5"):
        audit(GuessPlan.two_sided(60), scores, members, delta=1.5)
    with pytest.raises(InputError, match="confidence is 95"):
        audit(GuessPlan.two_sided(60), scores, members, delta=1e-5, confidence=95)
