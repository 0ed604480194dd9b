"""Generators that the operating system fills, and keys of streams, which generators give."""

import hashlib

import pytest
import torch

from dpnorm.privacy.randomness import entropy_generator, stream_key

WORDS = 624


def test_a_key_is_a_hash_of_what_was_drawn():
    drawn = torch.empty(5, dtype=torch.int64).random_(generator=torch.Generator().manual_seed(7))
    assert drawn.unique().numel() == 5
    key = stream_key(torch.Generator().manual_seed(7))
    assert key == hashlib.sha256(drawn.numpy().tobytes()).digest()[:16]


@pytest.mark.parametrize("given", [None, 7])
def test_the_keys_of_two_steps_differ_and_follow_from_the_state(given):
    source = None if given is None else torch.Generator().manual_seed(given)
    start = torch.get_rng_state() if source is None else source.get_state()
    first, second = stream_key(source), stream_key(source)
    assert first != second
    if source is None:
        torch.set_rng_state(start)
    else:
        source.set_state(start)
    assert [stream_key(source), stream_key(source)] == [first, second]


def test_a_key_is_drawn_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        assert len(stream_key(None)) == 16


def test_no_word_of_a_state_of_the_operating_system_is_seeded_from_32_bits():
    """torch's own seeding gives words that follow from the first (Knuth's recurrence)."""
    words = entropy_generator().get_state()[24 : 24 + 8 * WORDS].view(torch.int64)
    assert ((words >= 0) & (words < 2**32)).all()
    follows = (1812433253 * (words[:-1] ^ (words[:-1] >> 30)) + torch.arange(1, WORDS)) % 2**32
    assert not (follows == words[1:]).any()
    seeded = torch.Generator().manual_seed(5).get_state()[24 : 24 + 8 * WORDS].view(torch.int64)
    follows = (1812433253 * (seeded[:-1] ^ (seeded[:-1] >> 30)) + torch.arange(1, WORDS)) % 2**32
    assert (follows == seeded[1:]).all()
