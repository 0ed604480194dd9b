"""A measured number with its interval."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with a two-sided interval at the given confidence.

    >>> print(Estimate(0.5, 0.4, 0.6))
    0.500 [0.400, 0.600]
    >>> float(Estimate(0.5, 0.4, 0.6))
    0.5
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
