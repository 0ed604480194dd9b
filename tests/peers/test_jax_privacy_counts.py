"""The same counts, the same bound: our functions of counts against those of jax-privacy 2.0.0."""

import itertools

import pytest

from dpnorm.leakage import (
    Trials,
    multi_run_epsilon,
    one_run_epsilon,
    one_run_gaussian_epsilon,
    one_run_p_value,
)

pytestmark = pytest.mark.peers

GOLDEN = [  # correct, guesses, canaries, delta
    (75, 100, 100, 1e-4),
    (75, 100, 1000, 1e-4),
    (1439, 1510, 100_000, 1e-5),
    (9820, 10_000, 10_000, 1e-5),
]
GRID = [
    (round(share * guesses), guesses, canaries, delta)
    for guesses, canaries in [(1, 1), (8, 8), (20, 50), (100, 1000), (300, 500), (2000, 2000)]
    for share in (0.0, 0.5, 0.6, 0.8, 0.95, 1.0)
    for delta in (1e-6, 1e-3, 0.05)
]
SIGNIFICANCES = (0.01, 0.05, 0.2)


def two_valued_scores(correct: int, guesses: int, canaries: int) -> list[list[float]]:
    """Scores of members and others of which those above 0.5 give these counts, half of them in."""
    members = max(canaries // 2, correct, 1)
    members = min(members, canaries - (guesses - correct), max(1, canaries - 1))
    wrong, others = guesses - correct, canaries - members
    return [[1.0] * correct + [0.0] * (members - correct), [1.0] * wrong + [0.0] * (others - wrong)]


@pytest.mark.parametrize(
    ("name", "ours"),
    [("epsilon_one_run", one_run_epsilon), ("epsilon_one_run_fdp", one_run_gaussian_epsilon)],
)
def test_one_run_bounds_equal_those_of_jax_privacy(jax_privacy, name, ours):
    cases = [
        (case, significance)
        for case, significance in itertools.product(GOLDEN + GRID, SIGNIFICANCES)
        if case[1] < case[2] or 0 < case[0] < case[1]  # it wants canaries of both kinds
    ]
    at_half = {"threshold_strategy": ["Explicit", {"threshold": 0.5}]}
    calls = [
        (name, [*two_valued_scores(*counts), significance, delta], at_half)
        for (*counts, delta), significance in cases
    ]
    for ((*counts, delta), significance), expected in zip(cases, jax_privacy(calls), strict=True):
        bound = ours(*counts, delta=delta, confidence=1 - significance).value
        assert bound == pytest.approx(expected, abs=0.002), (counts, delta, significance)


def test_p_values_equal_those_of_jax_privacy(jax_privacy):
    cases = list(itertools.product(GOLDEN + GRID, (0.0, 0.7, 2.0, 4.0)))
    calls = [("_one_run_p_value", [m, r, v, eps, delta], {}) for (v, r, m, delta), eps in cases]
    for ((v, r, m, delta), epsilon), expected in zip(cases, jax_privacy(calls), strict=True):
        found = one_run_p_value(v, r, m, epsilon=epsilon, delta=delta)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9), (v, r, m, delta, epsilon)


def test_clopper_pearson_bounds_equal_those_of_jax_privacy(jax_privacy):
    shares = [(0, 40), (1, 40), (20, 40), (39, 40), (40, 40), (700, 1000), (998, 1000), (3, 1000)]
    cases = list(itertools.product(shares, shares, (0.0, 1e-5, 0.02), SIGNIFICANCES))
    calls = []
    for (found, members), (wrong, others), delta, significance in cases:
        scores = [[1.0] * k + [0.0] * (n - k) for k, n in ((found, members), (wrong, others))]
        options = {
            "one_sided": False,
            "threshold_strategy": ["Explicit", {"threshold": 0.5}],
        }
        calls.append(("epsilon_clopper_pearson", [*scores, significance, delta], options))
    for (inside, outside, delta, significance), expected in zip(
        cases, jax_privacy(calls), strict=True
    ):
        trials = Trials(
            true_positives=inside[0],
            members=inside[1],
            false_positives=outside[0],
            nonmembers=outside[1],
        )
        bound = multi_run_epsilon(
            trials, delta=delta, independent=True, confidence=1 - significance
        )
        assert bound.value == pytest.approx(expected, abs=0.002), (inside, outside, delta)
