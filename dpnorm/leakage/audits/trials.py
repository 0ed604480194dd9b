"""Guesses in trials, and what they say of the attack's two error rates."""

from dataclasses import dataclass

from scipy.special import betaincinv

from dpnorm.errors import InputError
from dpnorm.leakage.audits.inputs import require_count


@dataclass(frozen=True, kw_only=True)
class Trials:
    """How often canaries were guessed to be in, by a rule fixed before these trials.

    Attributes:
        true_positives: members that were guessed "in".
        members: trials whose canary was in, at least 1.
        false_positives: non-members that were guessed "in".
        nonmembers: trials whose canary was out, at least 1.

    Raises:
        InputError: not whole numbers, more positives than trials, or no trial of a kind.
    """

    true_positives: int
    members: int
    false_positives: int
    nonmembers: int

    def __post_init__(self) -> None:
        for positive, trials in (
            ("true_positives", "members"),
            ("false_positives", "nonmembers"),
        ):
            count = require_count(positive, getattr(self, positive))
            of = require_count(trials, getattr(self, trials), 1)
            if count > of:
                raise InputError(f"{positive} is {count}, {trials} is {of}: at most all of them")
            # counts may come as NumPy integers, which are no JSON
            object.__setattr__(self, positive, count)
            object.__setattr__(self, trials, of)

    @property
    def count(self) -> int:
        return self.members + self.nonmembers

    @property
    def correct(self) -> int:
        return self.true_positives + self.nonmembers - self.false_positives

    def perfect(self) -> "Trials":
        """As many trials, all guessed rightly."""
        return Trials(
            true_positives=self.members,
            members=self.members,
            false_positives=0,
            nonmembers=self.nonmembers,
        )

    def limits(self, confidence: float) -> tuple[float, float]:
        """The Clopper-Pearson limits TPR_low and FPR_high that hold together at `confidence`.

        Each is one-sided at half of the significance (Bonferroni).
        """
        half = (1 - confidence) / 2
        tpr, fpr = 0.0, 1.0
        if self.true_positives > 0:
            misses = self.members - self.true_positives
            tpr = float(betaincinv(self.true_positives, misses + 1, half))
        if self.false_positives < self.nonmembers:
            rightly_out = self.nonmembers - self.false_positives
            fpr = float(betaincinv(self.false_positives + 1, rightly_out, 1 - half))
        return tpr, fpr
