"""Two processes train what one would, add noise once, and go on together."""

import pytest
import torch
from scipy.stats import chi2

from tests.training.small import network
from tests.training.two_ranks import (
    ALIKE,
    CLIP,
    COMMON,
    KILLED,
    LIMIT,
    NOISE,
    ONLY_NOISE,
    PLAIN,
)
from tests.two_processes import of, run_both


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes came to: ({name: tensor}, facts) of each."""
    return run_both("tests.training.two_ranks", tmp_path_factory.mktemp("ranks"), LIMIT)


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_what_one_does_with_the_same_batches(ranks, name):
    alone = ALIKE[name].run()
    start = network(ALIKE[name].norm).state_dict()
    both = [of(rank, name) for rank in ranks]
    for key, expected in alone.model.state_dict().items():
        torch.testing.assert_close(both[0][key], expected, rtol=1e-5, atol=1e-5, msg=key)
    assert (both[0]["5.weight"] - start["5.weight"]).abs().max() > 1e-3
    for _, facts in ranks:
        found = facts[name]
        assert found["accuracy"] == alone.accuracy
        assert len(found["history"]) == len(alone.history)
        for ours, theirs in zip(found["history"], alone.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        if alone.statement is None:
            assert found["statement"] is None
        else:
            assert found["statement"]["epsilon"] == alone.statement.epsilon
            assert found["statement"]["steps"] == alone.statement.steps


def test_weights_and_buffers_are_the_same_bits_on_both(ranks):
    names = {key.partition("/")[0] for key in ranks[0][0]} - {"draws"}
    assert len(names) == len(ALIKE) + 2 * len(KILLED) + 3
    for name in names:
        first, second = (of(rank, name) for rank in ranks)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


@pytest.mark.parametrize("name", KILLED)
def test_a_seeded_training_that_both_left_goes_on_to_the_same_weights(ranks, name):
    """It was left in the middle of a step, then stopped as one of them was asked to."""
    for rank in ranks:
        whole, resumed = of(rank, f"whole, {name}"), of(rank, f"resumed, {name}")
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        _, facts = rank
        assert facts[f"whole, {name}"] == facts[f"resumed, {name}"]


def test_an_unseeded_training_that_both_left_keeps_its_account(ranks):
    for _, facts in ranks:
        whole, resumed = facts["secret"], facts["resumed, secret"]
        assert resumed["statement"]["epsilon"] == whole["statement"]["epsilon"]
        assert resumed["statement"]["steps"] == 6
        assert resumed["history"][-1]["step"] == 4  # two were begun and lost
    assert ranks[0][1]["resumed, secret"] == ranks[1][1]["resumed, secret"]


def test_both_are_told_that_the_journal_is_damaged(ranks):
    for _, facts in ranks:
        assert "is damaged" in facts["refusal"]


def test_the_noise_is_added_once(ranks):
    """A chi-square test of thirty steps without a record: it fails a sound program in 1e-4.

    Each step of SGD at rate 1 moves each weight by noise of NOISE * CLIP / batch size.
    """
    start = network("none").state_dict()
    end = of(ranks[0], "only noise")
    moved = torch.cat([(end[key] - start[key]).flatten().double() for key in start])
    std = NOISE * CLIP / PLAIN.batch_size * ONLY_NOISE["steps"] ** 0.5
    low, high = chi2.ppf([5e-5, 1 - 5e-5], len(moved))
    assert low < float((moved / std).square().sum()) < high
    assert COMMON["seed"] is not None


def test_each_process_draws_dropout_and_augmentation_of_its_own(ranks):
    """Eight coins of each step, three steps: they agree by chance in 6e-8 of the runs."""
    first, second = (of(rank, "draws")["plain"] for rank in ranks)
    assert first.shape == second.shape == (3, 8)
    assert not torch.equal(first, second)
