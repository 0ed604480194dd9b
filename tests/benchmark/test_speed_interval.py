import numpy as np
import pytest
from scipy import stats

from dpnorm.benchmark.speed.interval import exponent_of, median_interval, ratio_of

RUNS, PAIRS = 400, 15


def timings(generator, ratio, pairs=PAIRS):
    """Pairs on a machine that drifts by a factor of 3 and is at times five times slower."""
    machine = np.exp(np.cumsum(generator.normal(0, 0.1, pairs))) * np.linspace(1, 3, pairs)
    machine *= np.where(generator.random(pairs) < 0.2, 5.0, 1.0)
    noise = np.exp(0.1 * generator.standard_t(2, size=(2, pairs)))  # without a finite variance
    return ratio * machine * noise[0], machine * noise[1]


def test_the_interval_of_a_known_ratio_covers_it_as_often_as_it_says():
    """Errs with probability 0.001 at most, were the seed not fixed."""
    generator = np.random.default_rng(81)
    estimates = [ratio_of(*timings(generator, 1.25)) for _ in range(RUNS)]
    covered = sum(e.low <= 1.25 <= e.high for e in estimates)
    low, high = stats.binom.ppf([0.0005, 0.9995], RUNS, estimates[0].confidence)
    assert low <= covered <= high


def test_equal_costs_give_an_interval_around_one():
    """Errs with probability 0.04, were the seed not fixed."""
    estimate = ratio_of(*timings(np.random.default_rng(82), 1.0))
    assert estimate.low <= 1 <= estimate.high


def test_what_slows_a_pair_down_is_no_part_of_its_ratio():
    machine = np.array([1.0, 7.0, 0.3, 100.0, 2.0, 5.0])
    estimate = ratio_of(3 * machine, machine)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("count", range(1, 60))
def test_the_confidence_is_that_of_the_sign_test(count):
    estimate = median_interval(np.arange(1, count + 1))
    k = int(estimate.low)
    assert estimate.high == count + 1 - k
    below = float(stats.binom.cdf(k - 1, count, 0.5))
    assert estimate.confidence == pytest.approx(1 - 2 * below if count > 1 else 0.0)
    if count >= 6:
        narrower = 1 - 2 * float(stats.binom.cdf(k, count, 0.5))
        assert narrower < 0.95 <= estimate.confidence


def test_fewer_than_six_pairs_say_that_they_reach_less():
    assert [round(median_interval(range(n)).confidence, 4) for n in (3, 4, 5, 6)] == [
        0.75,
        0.875,
        0.9375,
        0.9688,
    ]


def test_a_known_exponent_is_covered_as_often_as_it_says():
    """Errs with probability 0.001 at most, were the seed not fixed."""
    generator, sizes = np.random.default_rng(83), np.array([16, 32, 64, 128])
    covered = 0
    for _ in range(RUNS):
        rounds = np.exp(np.cumsum(generator.normal(0, 0.1, 9)))
        seconds = 1e-3 * sizes[:, None] ** 0.9 * rounds
        estimate = exponent_of(sizes, seconds * np.exp(generator.normal(0, 0.1, seconds.shape)))
        covered += estimate.low <= 0.9 <= estimate.high
    low, high = stats.binom.ppf([0.0005, 0.9995], RUNS, estimate.confidence)
    assert low <= covered <= high
