"""Generators from others, and from the operating system, against NumPy's Mersenne Twister."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from dpnorm.privacy.randomness import branch, branch_key, entropy_generator

WORDS = 624


def words_of(generator, count):
    """Numbers of 31 bits: the lower ones of each of 32."""
    return torch.empty(count, dtype=torch.int32).random_(generator=generator).numpy()


def branches(generator, count):
    key = branch_key(generator)
    return [branch(key, number) for number in range(count)]


def twister(words):
    """NumPy's generator in this state."""
    found = np.random.MT19937()
    found.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": WORDS}}
    return found


def test_a_branch_is_a_mersenne_twister_whose_whole_state_is_a_hash_of_what_was_drawn():
    key = torch.empty(5, dtype=torch.int64).random_(generator=torch.Generator().manual_seed(7))
    for number, found in enumerate(branches(torch.Generator().manual_seed(7), 3)):
        raw = hashlib.shake_256(key.numpy().tobytes() + number.to_bytes(8, "little"))
        state = np.frombuffer(raw.digest(4 * WORDS), dtype="<u4")
        expected = twister(state).random_raw(2000) % 2**31
        np.testing.assert_array_equal(words_of(found, 2000), expected)


@pytest.mark.parametrize("given", [None, 7])
def test_no_two_branches_are_alike_and_none_is_like_what_it_comes_from(given):
    if given is None:
        torch.manual_seed(3)
    source = None if given is None else torch.Generator().manual_seed(given)
    found = [*branches(source, 20), *branches(source, 20)]  # of two steps
    drawn = [words_of(generator, 1000) for generator in found]
    drawn.append(words_of(source, 1000))
    # Two of 41 * 1000 numbers of 31 bits are the same with a probability of 0.3; two pairs that
    # stand in a row, of 62 bits, are with one of 2e-10.
    pairs = [pair for numbers in drawn for pair in pairwise(numbers.tolist())]
    assert len(set(pairs)) == len(pairs)


def test_branches_are_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        found = branches(None, 1)
    assert len(words_of(found[0], 3)) == 3


def test_branches_are_the_same_for_the_same_state():
    first, second = torch.Generator().manual_seed(9), torch.Generator().manual_seed(9)
    for one, other in zip(branches(first, 2), branches(second, 2), strict=True):
        assert torch.equal(one.get_state(), other.get_state())
    assert torch.equal(first.get_state(), second.get_state())


def test_no_word_of_a_state_of_the_operating_system_is_seeded_from_32_bits():
    """torch's own seeding gives words that follow from the first (Knuth's recurrence)."""
    for generator in (entropy_generator(), *branches(None, 1)):
        words = generator.get_state()[24 : 24 + 8 * WORDS].view(torch.int64)
        assert ((words >= 0) & (words < 2**32)).all()
        follows = (1812433253 * (words[:-1] ^ (words[:-1] >> 30)) + torch.arange(1, WORDS)) % 2**32
        assert not (follows == words[1:]).any()
    seeded = torch.Generator().manual_seed(5).get_state()[24 : 24 + 8 * WORDS].view(torch.int64)
    follows = (1812433253 * (seeded[:-1] ^ (seeded[:-1] >> 30)) + torch.arange(1, WORDS)) % 2**32
    assert (follows == seeded[1:]).all()
