"""A training is added to the ledger it is given, and goes on with no other one."""

import pytest

from dpnorm.data import load
from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import Ledger, PrivacyConfig, privatize_moments
from dpnorm.training import train
from dpnorm.training.clipped import ClippedSteps
from tests.training.small import PLAIN, images, network, stop_after, with_settings

BUDGET = PrivacyConfig(epsilon=3.0, delta=1e-4, accountant="rdp", seed=1)


def run(path=None, *, privacy=BUDGET, **options):
    return train(network(), images(12), with_settings(PLAIN, batch_size=4), privacy,
                 checkpoint=path, **options)  # fmt: skip


def of_moments(sigma=1.5):
    """A ledger as `privatize_moments` leaves it."""
    ledger = Ledger()
    ledger.book(sigma, 1.0, run="moments")
    return ledger


def test_the_budget_is_that_of_moments_and_training_together():
    moments = privatize_moments(load("digits"), noise_multiplier=3.0, accountant="rdp", seed=0)
    few = moments.data.train.select(slice(0, 12))
    model = network(classes=10)
    model[-1] = type(model[-1])(144, 10)
    config = with_settings(PLAIN, batch_size=4)
    statement = train(model, few, config, BUDGET, ledger=moments.ledger).statement
    assert moments.ledger.runs() == ["moments", "training"]
    assert 2.9 < statement.total_epsilon <= 3.0
    assert statement.epsilon < statement.total_epsilon
    assert statement.noise_multiplier > train(model, few, config, BUDGET).statement.noise_multiplier
    assert statement.earlier_runs == ("moments",)


def test_a_budget_that_is_spent_before_is_refused():
    with pytest.raises(InputError, match="epsilon 3 is spent"):
        run(ledger=of_moments(sigma=0.5))


@pytest.fixture
def stopped(tmp_path):
    """A training that was stopped after two of six steps, with what was released before."""
    path, ledger = tmp_path / "state", of_moments()
    with pytest.raises(StoppedError):
        run(path, ledger=ledger, should_stop=stop_after(2))
    return path, ledger


def test_it_goes_on_with_a_ledger_of_that_time_with_the_present_one_and_with_none(stopped):
    path, ledger = stopped
    raw, statements = path.read_bytes(), []
    for given in (of_moments(), ledger, None):
        path.write_bytes(raw)
        statements.append(run(path, ledger=given).statement)
        assert given is None or [e.steps for e in given.events] == [1, 6]
    assert statements[0] == statements[1] == statements[2]
    assert statements[0].total_epsilon <= 3.0


def more_runs():
    ledger = of_moments()
    ledger.book(2.0, 0.5, run="another", steps=3)
    return ledger


def same_name(noise, steps):
    ledger = of_moments()
    ledger.book(noise, 1 / 3, run="training", steps=steps)
    return ledger


OTHERS = {
    "empty": Ledger,
    "other noise": lambda: of_moments(1.6),
    "more runs": more_runs,
    "another training of the same name": lambda: same_name(9.0, 2),
    "a longer one": lambda: same_name(None, 7),
}


@pytest.mark.parametrize("name", OTHERS)
def test_it_does_not_go_on_with_another_ledger(name, stopped):
    path, present = stopped
    noise = present.of("training")[0].noise_multiplier
    other = same_name(noise, 7) if name == "a longer one" else OTHERS[name]()
    raw, events = path.read_bytes(), list(other.events)
    with pytest.raises(InputError, match=r"the ledger holds (other runs|a run 'training')"):
        run(path, ledger=other)
    assert (path.read_bytes(), other.events) == (raw, events)


def test_a_second_training_on_the_same_ledger_has_a_name_of_its_own():
    ledger, loose = Ledger(), PrivacyConfig(accountant="rdp", noise_multiplier=2.0, seed=1)
    run(ledger=ledger, privacy=loose)
    second = run(ledger=ledger, privacy=loose).statement
    assert ledger.runs() == ["training", "training 2"]
    assert second.total_epsilon > second.epsilon


@pytest.mark.parametrize("seed", [None, 1])
def test_left_in_the_middle_of_a_step_the_ledger_counts_each_step_once(seed, tmp_path, monkeypatch):
    """Four steps were begun after the only checkpoint: lost without a seed, repeated with one."""
    path, ledger = tmp_path / "state", of_moments()
    privacy = PrivacyConfig(accountant="rdp", noise_multiplier=2.0, seed=seed)
    taken, take = iter(range(10)), ClippedSteps.take

    def taking(self, chunks):
        if next(taken) == 3:
            raise KeyboardInterrupt
        return take(self, chunks)

    options = {"privacy": privacy, "ledger": ledger, "checkpoint_every": 1e9}
    monkeypatch.setattr(ClippedSteps, "take", taking)
    with pytest.raises(KeyboardInterrupt):
        run(path, **options)
    monkeypatch.undo()
    assert [event.steps for event in ledger.events] == [1, 4]
    trained = run(path, **options)
    assert [event.steps for event in ledger.events] == [1, 6]
    assert trained.history[-1]["step"] == (2 if seed is None else 6)
