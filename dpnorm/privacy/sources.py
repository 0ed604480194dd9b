"""Where the random numbers of one training come from."""

from typing import Any

import torch

from dpnorm.errors import InputError
from dpnorm.privacy.randomness import ENTROPY, entropy_generator, randomness, seeded_generator


class Sources:
    """The generators of the noise and of the sampling of one training.

    Args:
        seed: makes both reproducible; None for the operating system's entropy.
        given: of the noise, from the caller.
        secure: of both, in secure mode.

    Raises:
        InputError: nothing can be drawn from these, or they contradict each other.
    """

    def __init__(self, seed: Any, given: Any, secure: Any) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise InputError(f"seed is {seed!r}: it is to be a whole number, or None")
        if given is not None and not isinstance(given, torch.Generator):
            raise InputError(
                f"noise_generator is a {type(given).__name__}: make it with torch.Generator(device)"
            )
        if seed is not None and given is not None:
            raise InputError("give a seed or a noise_generator, not both")
        if secure is not None and (seed is not None or given is not None):
            raise InputError(
                "secure_mode draws from a cryptographic generator: leave out seed and "
                "noise_generator"
            )
        self._seed: int | None = seed
        self._given: torch.Generator | None = given
        self._secure: torch.Generator | None = secure
        self.seeded: dict[str, torch.Generator] = {}

    def noise(self, device: torch.device) -> torch.Generator | None:
        """That of the noise.

        Raises:
            InputError: the caller's is on another device.
        """
        if self._given is not None and self._given.device.type != device.type:
            raise InputError(
                f"noise_generator is on {self._given.device}, the model on {device}: make it with "
                "torch.Generator(device)"
            )
        if self._given is not None or self._secure is not None:
            return self._given if self._secure is None else self._secure
        if self._seed is None:
            return entropy_generator(device)
        return self._kept("noise", seeded_generator(self._seed, "noise", device=device))

    def sampling(self, rank: int) -> torch.Generator:
        """That of the sampling in one of several processes."""
        if self._secure is not None:
            return self._secure
        if self._seed is None:
            return entropy_generator()
        return self._kept("sampling", seeded_generator(self._seed, "sampling", rank=rank))

    def described(self) -> str:
        """As a statement says it."""
        if self._secure is not None:
            return "noise and sampling from a cryptographic generator (torchcsprng)"
        if self._given is not None:
            return (
                "noise from the generator that was passed: no guarantee to whoever knows its "
                f"seed; sampling from {ENTROPY}"
            )
        return randomness(self._seed)

    def _kept(self, purpose: str, generator: torch.Generator) -> torch.Generator:
        self.seeded[purpose] = generator
        return generator
