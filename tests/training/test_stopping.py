"""A training that is stopped and goes on is the one that was never stopped."""

import pytest
import torch

from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import Ledger, PrivacyConfig
from dpnorm.training import train
from tests.training.small import BUSY, flat, images, network, stop_after, with_settings

ADAMW = {"optimizer": "adamw", "lr": 0.01, "momentum": 0.0}
SEEDED = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, delta=1e-4, seed=5)
TRAININGS = {
    "plain": ("group", {}, None),
    "plain, batch norm, adamw": ("batch", ADAMW, None),
    "private, hooks": ("group", {}, SEEDED),
    "private, functorch, adamw": ("group", ADAMW | {"grad_sample_mode": "functorch"}, SEEDED),
    "private, ghost": ("group", {"grad_sample_mode": "ghost"}, SEEDED),
    "private, ew": ("group", {"grad_sample_mode": "ew", "views": 1}, SEEDED),
    "private batch norm": ("private", {}, SEEDED),
    "public batch norm": ("public", {}, SEEDED),
    "plain, public batch norm": ("public", {}, None),
}


def run(name, **options):
    norm, settings, privacy = TRAININGS[name]
    dropout = 0.3 if settings.get("grad_sample_mode") != "ew" else 0.0  # which ew cannot express
    return train(
        network(norm, dropout=dropout),
        images(),
        with_settings(BUSY, **settings),
        privacy,
        **({"test": images(12, seed=2), "public": images(10, seed=3).x} | options),
    )


@pytest.mark.parametrize("name", TRAININGS)
def test_stopped_after_every_single_step_it_comes_to_the_same_weights(name, tmp_path):
    """Each step is taken by a training that goes on from the file of the one before."""
    path = tmp_path / "state.safetensors"
    whole = run(name)
    for step in range(1, 6):
        with pytest.raises(StoppedError, match=f"after step {step} of 6.*holds it"):
            run(name, checkpoint=path, checkpoint_every=1e9, should_stop=lambda: True)
    resumed = run(name, checkpoint=path)
    assert torch.equal(flat(resumed.model), flat(whole.model))
    assert resumed.history == whole.history
    assert resumed.accuracy == whole.accuracy
    assert resumed.statement == whole.statement
    assert len(whole.history) == 2
    assert not torch.equal(flat(whole.model), flat(network(TRAININGS[name][0])))


@pytest.mark.parametrize("name", ["plain", "private batch norm"])
@pytest.mark.parametrize("step", [1, 3, 6])
def test_stopped_once_it_comes_to_the_same_weights(name, step, tmp_path, undisturbed):
    path = tmp_path / "state.safetensors"
    with pytest.raises(StoppedError):
        run(name, checkpoint=path, checkpoint_every=1e9, should_stop=stop_after(step))
    resumed = run(name, checkpoint=path)
    assert torch.equal(flat(resumed.model), flat(undisturbed(name).model))
    assert resumed.history == undisturbed(name).history


@pytest.fixture(scope="module")
def undisturbed():
    found = {}
    return lambda name: found[name] if name in found else found.setdefault(name, run(name))


def test_a_training_that_is_over_gives_the_same_again(tmp_path):
    path = tmp_path / "state.safetensors"
    first = run("private, hooks", checkpoint=path)
    again = run("private, hooks", checkpoint=path)
    assert torch.equal(flat(first.model), flat(again.model))
    assert again.statement == first.statement
    assert again.statement.steps == 6


def test_a_checkpoint_at_each_step_does_not_change_the_training(tmp_path):
    kept = run("private, hooks", checkpoint=tmp_path / "state", checkpoint_every=0)
    assert torch.equal(flat(kept.model), flat(run("private, hooks").model))


def test_a_training_without_a_checkpoint_stops_too():
    with pytest.raises(StoppedError, match=r"after step 2 of 6$"):
        run("plain", should_stop=stop_after(2))


def test_what_does_not_change_the_training_may_change_when_it_goes_on(tmp_path):
    """How often it is evaluated and how many processes load its records."""
    path = tmp_path / "state.safetensors"
    with pytest.raises(StoppedError):
        run("plain", checkpoint=path, should_stop=stop_after(2))
    config = with_settings(BUSY, evaluate_every=0, workers=1)
    resumed = train(network("group", dropout=0.3), images(), config, checkpoint=path)
    assert torch.equal(flat(resumed.model), flat(run("plain").model))


def test_the_ledger_in_the_program_follows_a_training_that_goes_on(tmp_path):
    path, ledger = tmp_path / "state.safetensors", Ledger()
    ledger.book(3.0, 1.0, run="moments")
    with pytest.raises(StoppedError):
        run("private, hooks", checkpoint=path, ledger=ledger, should_stop=stop_after(4))
    assert ledger.history("training") == [(1.0, 1 / 3, 4)]
    resumed = run("private, hooks", checkpoint=path, ledger=ledger)
    assert ledger.history("training") == [(1.0, 1 / 3, 6)]
    assert ledger.history("moments") == [(3.0, 1.0, 1)]
    whole = Ledger()
    whole.book(3.0, 1.0, run="moments")
    assert run("private, hooks", ledger=whole).statement == resumed.statement
    assert whole.events == ledger.events


@pytest.mark.parametrize("name", ["public batch norm", "plain, public batch norm"])
def test_it_does_not_go_on_with_other_public_records(name, tmp_path):
    path = tmp_path / "state"
    with pytest.raises(StoppedError):
        run(name, checkpoint=path, should_stop=stop_after(2))
    with pytest.raises(InputError, match=r"data\.public was"):
        run(name, checkpoint=path, public=images(10, seed=4).x)
