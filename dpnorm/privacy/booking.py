"""The account of a training: every step is booked before it is taken."""

import math
from typing import Any

from opacus.accountants import IAccountant

from dpnorm.privacy.ledger import Ledger
from dpnorm.privacy.optimizer import PrivateOptimizer
from dpnorm.privacy.sampling import AnnouncedBatches, PoissonSampler
from dpnorm.privacy.statement import FIXED, POISSON


class Booking:
    """Books the steps of one run in its ledger and its accountant.

    Without Poisson sampling a record that is added or removed moves others to other batches: a step
    may then move by twice the clipping norm, and no sampling hides it.

    Args:
        ledger: of all runs on the records.
        run: the name of this one.
        accountant: of this one.
        rate: with which each record is drawn for a batch.
        poisson: whether it is drawn by itself.
        sampler: draws the batches.
    """

    def __init__(
        self,
        ledger: Ledger,
        run: str,
        accountant: IAccountant,
        *,
        rate: float,
        poisson: bool,
        sampler: PoissonSampler | AnnouncedBatches,
    ) -> None:
        self._ledger, self._run, self._accountant = ledger, run, accountant
        self._rate, self._poisson, self._sampler = rate, poisson, sampler
        self._used = 0  # of the batches that the sampler drew
        self._others = 0  # steps on batches that it did not

    def attach(self, optimizer: PrivateOptimizer) -> None:
        """Books what the optimizer releases; hooks that are attached later come on top."""

        def attach(function: Any) -> None:
            def both(optimizer: Any) -> None:
                self._book(optimizer)
                function(optimizer)

            optimizer.step_hook = both

        optimizer.step_hook = self._book
        optimizer.attach_step_hook = attach

    def sampling(self) -> str:
        """How batches came about, as a statement says it."""
        if not self._poisson:
            return FIXED
        if not self._others:
            return POISSON
        return f"{POISSON}; {self._others} steps on batches that the loader did not draw: {FIXED}"

    def _book(self, optimizer: Any) -> None:
        noise, batches = optimizer.noise_multiplier, optimizer.accumulated_iterations
        sampled, drawn = self._rate, self._drawn_for(batches)
        if not self._poisson or not drawn:
            # of batches that were not drawn one by one, a record may be in each
            noise, sampled, batches = noise / 2 / (1 if drawn else batches), 1.0, 1
        # the sum of several batches is less than each with its share of the noise
        noise /= math.sqrt(batches)
        self._ledger.book(noise, sampled, optimizer.releases(), run=self._run, steps=batches)
        for _ in range(batches):
            self._accountant.step(noise_multiplier=noise, sample_rate=sampled)

    def _drawn_for(self, batches: int) -> bool:
        """Whether the sampler has drawn batches that no step was booked for."""
        if self._sampler.drawn < self._used + batches:
            self._others += 1
            return False
        self._used += batches
        return True
