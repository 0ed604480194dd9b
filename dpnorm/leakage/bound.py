"""A lower bound on epsilon, with all that one must know to believe it."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from dpnorm.leakage.estimate import Estimate

Standing = Literal["rigorous", "assumes a trade-off family", "heuristic"]


@dataclass(frozen=True, kw_only=True)
class Bound(Estimate):
    """What an audit shows: epsilon is at least `value`, at the given confidence.

    An audit bounds epsilon from below only: `low` is the value, `high` is infinite. A small value
    may say that little leaks, or that the attack was weak or the canaries few; only the ceiling
    tells how much this audit could have shown.

    Attributes:
        method: the name of the method and its source.
        canaries: m, the canaries whose membership was drawn at random, or the number of trials.
        guesses: r, how many of them were guessed; the attacker abstained from the others.
        correct: v, how many guesses were right.
        delta: the delta at which epsilon is bounded.
        ceiling: the bound that the same number of canaries and guesses, at the same delta and
            confidence, would have given had every guess been right.
        fixed: what was fixed before the scores were seen.
        standing: "rigorous", "assumes a trade-off family" or "heuristic".
        condition: what the standing rests on, or why it is no better.
    """

    method: str
    canaries: int
    guesses: int
    correct: int
    delta: float
    ceiling: float
    fixed: str
    standing: Standing
    condition: str

    def __str__(self) -> str:
        shown = f"epsilon >= {self.value:.3f}"
        if self.value == 0:
            shown += " (no leakage shown, which is not to show that there is none)"
        return "\n".join(
            [
                f"{shown} at delta {self.delta:g}, confidence {100 * self.confidence:g}%",
                f"  standing:  {self.standing}: {self.condition}",
                f"  method:    {self.method}",
                f"  evidence:  {self.correct} of {self.guesses} guesses right, "
                f"{self.canaries} canaries",
                f"  ceiling:   {self.ceiling:.3f}, the most that an audit of this size could show",
                f"  fixed:     {self.fixed}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The bound as plain values for JSON; what is infinite is the text "inf"."""
        return {
            "epsilon": _finite(self.value),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "confidence": self.confidence,
            "delta": self.delta,
            "method": self.method,
            "standing": self.standing,
            "condition": self.condition,
            "canaries": self.canaries,
            "guesses": self.guesses,
            "correct": self.correct,
            "ceiling": _finite(self.ceiling),
            "fixed_in_advance": self.fixed,
        }


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
