"""Where noise and sampling get their random numbers from."""

import hashlib
import os

import torch

from dpnorm.privacy.gaussian_stream import KEY

ENTROPY = "torch's generators (Mersenne Twister on the CPU), filled by the operating system"


def entropy_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state comes from the operating system.

    torch seeds its Mersenne Twister with 32 bits, whatever it is given, and whoever tries all of
    them finds the noise: on the CPU all 624 words of the state are filled instead.
    """
    generator = torch.Generator(device)
    generator.seed()
    if generator.device.type == "cpu":
        state = generator.get_state()
        words = state[_HEADER : _HEADER + 8 * _WORDS].view(torch.int64)
        words.copy_(torch.frombuffer(bytearray(os.urandom(4 * _WORDS)), dtype=torch.int32))
        words.bitwise_and_(0xFFFFFFFF)
        generator.set_state(state)  # which torch stirs before the first draw
    return generator


def stream_key(generator: torch.Generator | None) -> bytes:
    """A key of 128 bits, drawn from a generator on the CPU, or torch's own where it is None.

    Source: the first half of SHA-256, FIPS 180-4, of 315 bits that are drawn.
    """
    drawn = torch.empty(5, dtype=torch.int64, device="cpu").random_(generator=generator)
    return hashlib.sha256(drawn.numpy().tobytes()).digest()[:KEY]


def seeded_generator(
    seed: int, purpose: str, *, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator that gives the same numbers for the same seed, and no others' numbers.

    Args:
        seed: of the experiment.
        purpose: what is drawn; each purpose has numbers of its own.
        rank: of the process that draws.
        device: where the numbers are.
    """
    digest = hashlib.sha256(f"{seed} {purpose} {rank}".encode()).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest[:4], "big"))
    return generator


def randomness(seed: int | None) -> str:
    """Where noise and sampling come from, as a statement says it."""
    if seed is None:
        return ENTROPY
    return (
        f"reproducible from seed {seed}: for benchmarks only, no guarantee once the seed is known"
    )


_HEADER, _WORDS = 24, 624  # bytes before the words in torch's state; words of 32 bits, 8 bytes each
