"""Two processes train what one would, and add noise once."""

import pytest
import torch
from scipy.stats import chi2

from dpnorm.privacy.randomness import entropy_generator, seeded_generator
from dpnorm.privacy.sampling import PoissonSampler
from tests.privacy.two_ranks import (
    CLIP,
    COUNT_STD,
    LIMIT,
    NOISE,
    SCENARIOS,
    SPOILED,
    Scaled,
    Scenario,
    prepared,
)
from tests.two_processes import WORLD, of, run_both


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes came to: ({name: tensor}, facts) of each."""
    return run_both("tests.privacy.two_ranks", tmp_path_factory.mktemp("ranks"), LIMIT)


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_train_what_one_does_with_the_batches_of_both(ranks, name):
    drawn = [facts[name]["drawn"] for _, facts in ranks]
    assert len(drawn[0]) == len(drawn[1]) > 2
    alone = prepared(SCENARIOS[name], shared=False)
    start = alone.state()
    for batches in zip(*drawn, strict=True):
        union = sorted(index for batch in batches for index in batch)
        alone.step(alone.records.x[union], alone.records.y[union])
    both = [of(rank, name) for rank in ranks]
    assert both[0].keys() == alone.state().keys()
    for key, expected in alone.state().items():
        assert torch.equal(both[0][key], both[1][key]), key
        torch.testing.assert_close(both[0][key], expected, rtol=1e-5, atol=1e-5, msg=key)
    moved = {key for key, tensor in start.items() if (both[0][key] - tensor).abs().max() > 1e-3}
    assert moved >= {key for key in start if key.endswith(("weight", "running_mean"))}
    assert ("clip" in moved) == (SCENARIOS[name].clipping == "adaptive")


@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_a_process_without_a_record_takes_the_step_with_the_other_one(ranks, mode):
    drawn = [facts[f"small batches, {mode}"]["drawn"] for _, facts in ranks]
    kinds = {(bool(a), bool(b)) for a, b in zip(*drawn, strict=True)}
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "chunks" in name])
def test_processes_may_take_a_step_in_different_numbers_of_chunks(ranks, name):
    first, second = (facts[name]["chunks"] for _, facts in ranks)
    assert len(first) == len(second)
    assert any(a < b for a, b in zip(first, second, strict=True))
    assert any(a > b for a, b in zip(first, second, strict=True))


def test_a_record_that_is_not_finite_is_dropped_by_the_process_that_holds_it(ranks):
    first, second = (facts["a record of NaN"] for _, facts in ranks)
    assert first["dropped"] == 0
    assert second["dropped"] == sum(SPOILED in batch for batch in second["drawn"]) > 0


def test_parameters_and_statistics_stay_the_same_on_both_under_noise(ranks):
    first, second = (of(rank, "noisy")["path"] for rank in ranks)
    assert torch.equal(first, second)
    assert (first.diff(dim=0).abs().amax(1) > 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_noise_of_each_release_is_added_once(ranks, reduction):
    """Chi-square tests of the variance: each fails a sound program with probability 1e-4."""
    first, second = (of(rank, f"quiet, {reduction}") for rank in ranks)
    statistics = NOISE * 17**0.5  # the ratio is 4
    count = 2 * COUNT_STD
    gradient = (NOISE**-2 - statistics**-2 - count**-2) ** -0.5
    divisor = Scenario("private").batch if reduction == "mean" else 1
    expected = {
        "gradients": gradient * CLIP / divisor,
        "statistics": statistics,
        "counts": COUNT_STD / WORLD,  # each process counts against its own share of the batch
    }
    assert first.keys() == second.keys() == expected.keys()
    for key, std in expected.items():
        assert torch.equal(first[key], second[key])
        assert len(first[key].unique(dim=0)) == len(first[key])
        total = float((first[key].double() / std).square().sum())
        low, high = chi2.ppf([5e-5, 1 - 5e-5], first[key].numel())
        assert low < total < high, key


def test_both_begin_with_the_parameters_and_buffers_of_the_first_process(ranks):
    for name, expected in Scaled(0).state_dict().items():
        assert not torch.equal(Scaled(1).state_dict()[name], expected)
        for rank in ranks:
            assert torch.equal(of(rank, "made alike")[name], expected), name


def test_the_account_of_each_process_is_that_of_one(ranks):
    scenario = Scenario("private", clipping="adaptive")
    alone = prepared(scenario, shared=False, noise=NOISE, seed=None)
    for _ in range(3):
        for x, y in alone.loader:
            alone.step(x, y)
    for _, facts in ranks:
        found = facts["noisy"]
        assert found["epsilon"] == alone.engine.get_epsilon(1e-5)
        assert found["statement"] == alone.engine.statement(1e-5).epsilon
        assert [tuple(entry) for entry in found["history"]] == alone.engine.accountant.history
        assert found["ledger"] == alone.engine.ledger.to_dict()


def test_torchs_own_wrapper_is_refused(ranks):
    for _, facts in ranks:
        assert "DifferentiallyPrivateDistributedDataParallel" in facts["refusal"]
        assert "before they are clipped" in facts["refusal"]


@pytest.mark.parametrize("source", ["seed", "entropy"])
def test_each_process_of_a_training_draws_from_its_own_shard_with_coins_of_its_own(ranks, source):
    drawn = [facts["coins"][source] for _, facts in ranks]
    assert all(index % WORLD == r for r in range(WORLD) for batch in drawn[r] for index in batch)
    require_independent(
        *(coins(batches, range(r, 24, WORLD)) for r, batches in enumerate(drawn)), rate=0.5
    )


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_the_shards_hold_every_record_once(world):
    samplers = [
        PoissonSampler(
            20, 1.0, 2, seeded_generator(0, "sampling", rank=rank), rank=rank, world=world
        )
        for rank in range(world)
    ]
    for batches in zip(*samplers, strict=True):
        assert sorted(index for batch in batches for index in batch) == list(range(20))
        assert max(map(len, batches)) - min(map(len, batches)) <= 1


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize(
    "generators",
    [
        lambda: [seeded_generator(5, "sampling", rank=rank) for rank in (0, 1)],
        lambda: (entropy_generator(), entropy_generator()),
    ],
    ids=["seeds", "entropy"],
)
def test_the_coins_of_two_shards_are_independent(generators, rate):
    shards = [range(r, 100, 2) for r in (0, 1)]
    found = [
        coins(PoissonSampler(100, rate, 50, generator, rank=r, world=2), shards[r])
        for r, generator in enumerate(generators())
    ]
    require_independent(*found, rate=rate)


def coins(batches, shard):
    """(batches, records): which records of the shard are in which batch."""
    return torch.tensor([[index in set(batch) for index in shard] for batch in batches])


def require_independent(a, b, *, rate):
    """Shares within five standard errors: a false alarm in less than 2e-6 runs.

    Each coin falls as often as it should, and two of the same place and batch as often together.
    """
    for share, expected in (
        (a.double().mean(), rate),
        (b.double().mean(), rate),
        ((a & b).double().mean(), rate**2),
    ):
        error = (expected * (1 - expected) / a.numel()) ** 0.5
        assert abs(float(share) - expected) < 5 * error
