"""Which generator noise and sampling come from, by what the caller said."""

import pytest
import torch

from dpnorm.errors import InputError
from dpnorm.privacy.sources import Sources

CPU = torch.device("cpu")


def numbers(generator):
    return torch.rand(8, generator=generator).tolist()


def test_a_seed_gives_the_same_numbers_again_and_both_purposes_their_own():
    first, again, other = (Sources(seed, None, None) for seed in (3, 3, 4))
    assert numbers(first.noise(CPU)) == numbers(again.noise(CPU)) != numbers(other.noise(CPU))
    assert numbers(first.sampling(0)) == numbers(again.sampling(0)) != numbers(first.sampling(1))
    assert numbers(first.sampling(0)) != numbers(Sources(3, None, None).noise(CPU))
    assert "seed 3" in first.described()


def test_generators_of_a_seed_are_those_that_a_checkpoint_keeps():
    sources = Sources(3, None, None)
    assert not sources.seeded
    noise, sampling = sources.noise(CPU), sources.sampling(0)
    assert sources.seeded == {"noise": noise, "sampling": sampling}


def test_without_a_seed_no_two_generators_are_alike_and_none_is_kept():
    sources = Sources(None, None, None)
    drawn = [numbers(g) for g in (sources.noise(CPU), sources.noise(CPU), sources.sampling(0))]
    assert len({tuple(d) for d in drawn}) == 3
    assert not sources.seeded
    assert "operating system" in sources.described()


def test_a_given_generator_is_of_the_noise_alone():
    given = torch.Generator().manual_seed(1)
    sources = Sources(None, given, None)
    assert sources.noise(CPU) is given
    assert sources.sampling(0) is not given
    assert "generator that was passed" in sources.described()
    with pytest.raises(InputError, match="noise_generator is on cpu, the model on cuda"):
        sources.noise(torch.device("cuda"))


def test_in_secure_mode_both_come_from_its_generator():
    secure = torch.Generator().manual_seed(1)  # stands for torchcsprng's
    sources = Sources(None, None, secure)
    assert sources.noise(CPU) is sources.sampling(0) is secure
    assert "cryptographic" in sources.described()


@pytest.mark.parametrize(
    ("seed", "given", "secure", "said"),
    [
        (1.5, None, None, "seed is 1.5: it is to be a whole number"),
        (True, None, None, "seed is True"),
        (None, 7, None, "noise_generator is a int"),
        (1, torch.Generator(), None, "a seed or a noise_generator, not both"),
        (1, None, torch.Generator(), "leave out seed and noise_generator"),
        (None, torch.Generator(), torch.Generator(), "leave out seed and noise_generator"),
    ],
)
def test_what_nothing_can_be_drawn_from_is_refused(seed, given, secure, said):
    with pytest.raises(InputError, match=said):
        Sources(seed, given, secure)
