"""What a private training draws is known to nobody; what is the caller's stays the caller's."""

import sys

import pytest
import torch

from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import PrivacyConfig, entropy_generator
from dpnorm.training import train
from dpnorm.training.source import Source
from tests.training.small import BUSY, PLAIN, flat, images, network, with_settings

QUIET = {"accountant": "rdp", "noise_multiplier": 1e-9, "sampling_rate": 1.0, "steps": 3}
DRAWS = {
    "dropout": (0.5, {}),
    "augmentation": (0.0, {"augment": "shift"}),
    "views": (0.0, {"augment": "shift-flip", "views": 2}),
    "nothing": (0.0, {}),
}


def weights(draws, privacy):
    dropout, settings = DRAWS[draws]
    torch.manual_seed(0)  # as somebody does who knows it
    config = with_settings(PLAIN, batch_size=12, seed=7, **settings)
    return flat(train(network(dropout=dropout), images(12), config, privacy).model)


@pytest.mark.parametrize("draws", DRAWS)
def test_what_a_secret_training_draws_follows_no_seed_of_the_program(draws):
    """Every record is in every batch, without noise, so that nothing else differs.

    That masks of hundreds of places agree by chance has no probability worth a name.
    """
    privacy = PrivacyConfig(**QUIET)
    differ = (weights(draws, privacy) - weights(draws, privacy)).abs().max()
    assert differ > 1e-3 if draws != "nothing" else differ < 1e-6


@pytest.mark.parametrize("draws", DRAWS)
def test_what_a_seeded_training_draws_follows_the_seed_of_its_privacy(draws):
    first, again, other = (weights(draws, PrivacyConfig(seed=s, **QUIET)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert ((other - first).abs().max() > 1e-3) == (draws != "nothing")


class Shuffled(torch.utils.data.Dataset):
    """Records with a random number of their own in each."""

    def __init__(self, count):
        self.records = images(count)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        x, y = self.records[index]
        return x + 0.1 * torch.randn(()), y


TRAININGS = {
    "plain": None,
    "private": PrivacyConfig(accountant="rdp", noise_multiplier=1.0),
    "seeded": PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=1),
}


@pytest.mark.parametrize("records", [images, Shuffled], ids=["memory", "map-style"])
@pytest.mark.parametrize("name", TRAININGS)
def test_torchs_random_state_is_the_same_after_it_as_before(name, records):
    config = with_settings(BUSY, grad_sample_mode="auto", zero_last_layer=True)
    before = torch.get_rng_state()
    model = network("private" if TRAININGS[name] else "batch", dropout=0.3)
    train(model, records(24), config, TRAININGS[name], test=records(12))
    assert torch.equal(torch.get_rng_state(), before)


def test_so_it_is_where_the_training_does_not_end():
    before = torch.get_rng_state()
    with pytest.raises(StoppedError):
        train(network(), images(), BUSY, should_stop=lambda: True)
    with pytest.raises(InputError):
        train(network(), images(3), BUSY)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plain_training_follows_its_seed_alone():
    config = with_settings(BUSY, seed=7)
    found = []
    for state in (0, 1):
        torch.manual_seed(state)
        found.append(flat(train(network(dropout=0.5), images(), config).model))
    assert torch.equal(*found)


class Guessed(torch.utils.data.Dataset):
    """Whether torch's random state is the one of its seed, which is of 32 bits."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        guess = torch.Generator().manual_seed(torch.initial_seed()).get_state()
        return torch.tensor([float(torch.equal(guess, torch.get_rng_state()))]), 0


@pytest.mark.parametrize("secret", [True, False])
def test_what_a_loading_process_draws_is_found_by_no_seed(secret):
    source = Source(Guessed(), workers=1, secret=secret, generator=entropy_generator())
    [(x, _)] = source.stream([[0]])
    assert x.item() == (not secret)


@pytest.mark.parametrize("seed", [None, 1])
def test_only_a_training_with_a_seed_loads_by_one(seed, monkeypatch):
    kinds = []

    class Watched(Source):
        def __init__(self, *args, secret=False, **options):
            kinds.append(secret)
            super().__init__(*args, secret=secret, **options)

    module = sys.modules["dpnorm.training.train"]  # the package has a function of that name
    monkeypatch.setattr(module, "Source", Watched)
    privacy = PrivacyConfig(accountant="rdp", noise_multiplier=1.0, seed=seed)
    train(network(), Shuffled(24), PLAIN, privacy)
    assert any(kinds) == (seed is None)
