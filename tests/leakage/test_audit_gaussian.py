"""The one-run bound for Gaussian trade-offs, against what is known exactly."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import ndtr, ndtri
from scipy.stats import binom, norm

from dpnorm.errors import InputError
from dpnorm.leakage import one_run_epsilon, one_run_gaussian_epsilon
from dpnorm.leakage.audits.gaussian import epsilon_of_mu
from dpnorm.leakage.audits.one_run_gaussian import largest_mu, rejects

sizes = st.integers(1, 25).flatmap(
    lambda m: st.integers(1, m).flatmap(
        lambda r: st.tuples(st.integers(1, r), st.just(r), st.just(m))
    )
)
mus = st.floats(0, 5)


def gaussian(mu):
    return lambda y: ndtr(ndtri(y) - mu)


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 3.0])
def test_one_canary_gives_the_exact_optimum(mu):
    # the best guess of a fair coin from N(0, 1) against N(mu, 1) is right with Phi(mu / 2)
    best = norm.cdf(mu / 2)
    assert not rejects(gaussian(mu), best - 1e-6, 1, 1, 1)
    assert rejects(gaussian(mu), best + 1e-6, 1, 1, 1)
    assert largest_mu(1, 1, 1, best) == pytest.approx(mu, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(size=sizes, mu=mus)
def test_independent_guesses_of_known_accuracy_are_never_rejected(size, mu):
    correct, _, canaries = size
    chance = binom.sf(correct - 1, canaries, norm.cdf(mu / 2))  # all m guessed, by sign
    if 1e-12 < chance < 1:
        assert not rejects(gaussian(mu), chance * (1 - 1e-6), correct, canaries, canaries)


@settings(max_examples=100, deadline=None)
@given(size=sizes, mu=mus, shift=st.floats(-2, 2))
def test_guesses_that_hang_on_one_noisy_sum_are_never_rejected(size, mu, shift):
    # y = mu * (number of members) + N(0, 1) is mu-GDP for each canary. The first r are guessed
    # all in if y is above a threshold, else all out: as dependent as guesses can be.
    correct, guesses, canaries = size
    threshold = mu * canaries / 2 + shift
    chance = 0.0
    for inside in range(guesses + 1):
        for others in range(canaries - guesses + 1):
            weight = binom.pmf(inside, guesses, 0.5) * binom.pmf(others, canaries - guesses, 0.5)
            above = norm.sf(threshold - mu * (inside + others))
            right_in, right_out = inside >= correct, guesses - inside >= correct
            chance += weight * (above * right_in + (1 - above) * right_out)
    if 1e-12 < chance < 1:
        assert not rejects(gaussian(mu), chance * (1 - 1e-6), correct, guesses, canaries)


@pytest.mark.parametrize("mu", [0.5, 2.0])
@pytest.mark.parametrize(
    ("correct", "guesses", "canaries"), [(1, 2, 2), (3, 4, 9), (6, 8, 8), (7, 12, 15), (20, 20, 20)]
)
def test_the_recursion_equals_a_linear_program(mu, correct, guesses, canaries):
    # Under F = min over tangents t of (a_t + b_t x), each R_j <= F(H_{j-1}) is linear in p, and
    # the largest P[>= v] is the value of a linear program: no greedy argument is needed.
    at = norm.cdf(np.linspace(-5, 4, 40))
    slope = norm.pdf(norm.ppf(at) + mu) / norm.pdf(norm.ppf(at))
    offset = norm.cdf(norm.ppf(at) + mu) - slope * at
    k = np.arange(guesses + 1)
    rows, limits = [], []
    for j in range(1, guesses + 1):
        right = np.where(k >= j, k, 0) / canaries
        wrong = np.where(k >= j - 1, guesses - k, 0) / canaries
        rows += [right - b * wrong for b in slope]
        limits += list(offset)
    best = linprog(
        -1.0 * (k >= correct),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        A_eq=np.ones((1, guesses + 1)),
        b_eq=[1.0],
    )
    assert best.success

    def inverse(y):
        return np.maximum(0.0, np.max((y - offset) / slope))

    probability = -best.fun
    assert not rejects(inverse, probability - 1e-5, correct, guesses, canaries)
    if probability < 1 - 1e-4:
        assert rejects(inverse, probability + 1e-5, correct, guesses, canaries)


@settings(max_examples=60, deadline=None)
@given(size=sizes, confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_bound_grows_with_evidence_and_falls_with_caution(size, confidence):
    correct, guesses, canaries = size
    base = largest_mu(correct, guesses, canaries, 1 - confidence)
    if correct < guesses:
        assert largest_mu(correct + 1, guesses, canaries, 1 - confidence) >= base - 1e-6
    assert largest_mu(correct, guesses, 2 * canaries, 1 - confidence) <= base + 1e-6
    assert largest_mu(correct, guesses, canaries, (1 - confidence) / 2) <= base + 1e-6


@pytest.mark.parametrize(
    "counts", [(75, 100, 100), (75, 100, 1000), (1439, 1510, 100_000), (9820, 10_000, 10_000)]
)
def test_knowing_the_family_gives_at_least_the_bound_for_any_mechanism(counts):
    assumed = one_run_gaussian_epsilon(*counts, delta=1e-5)
    assert assumed.value > one_run_epsilon(*counts, delta=1e-5).value
    assert assumed.ceiling > assumed.value
    assert assumed.standing == "assumes a trade-off family"
    assert "for Gaussian differential privacy" in str(assumed)


def test_chance_guesses_bound_nothing():
    assert one_run_gaussian_epsilon(50, 100, 100, delta=1e-5).value == 0
    assert one_run_gaussian_epsilon(0, 100, 100, delta=1e-5).value == 0


@pytest.mark.parametrize("mu", [0.01, 0.5, 2.0, 12.0])
def test_epsilon_of_mu_lies_on_the_gaussian_curve(mu):
    epsilon = epsilon_of_mu(mu, 1e-5)
    if epsilon > 0:
        first = norm.cdf(mu / 2 - epsilon / mu)
        second = np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        assert first - second == pytest.approx(1e-5, rel=1e-6)
    assert epsilon_of_mu(0.0, 1e-5) == 0


def test_a_hundred_thousand_canaries_take_about_a_second():
    start = time.perf_counter()
    one_run_gaussian_epsilon(1438, 1510, 100_000, delta=1e-5)
    one_run_gaussian_epsilon(93_000, 99_000, 100_000, delta=1e-6)
    assert time.perf_counter() - start < 5.0  # 0.3 s on an idle core, once torch is imported


def test_pure_differential_privacy_and_impossible_counts_are_refused():
    with pytest.raises(InputError, match="no finite epsilon"):
        one_run_gaussian_epsilon(5, 10, 20, delta=0)
    with pytest.raises(InputError, match="11 correct guesses of 10"):
        one_run_gaussian_epsilon(11, 10, 20, delta=1e-5)
