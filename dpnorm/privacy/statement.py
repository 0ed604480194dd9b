"""What a private training guarantees, in full."""

import json
from dataclasses import asdict, dataclass
from typing import Any

NOT_COVERED = (
    "the number of records, which sets the sampling rate",
    "hyperparameters that were chosen by looking at private results",
    "training losses and accuracies on private records, where they are published",
    "the initial weights and statistics, where they came from private data",
    "rounding of the noise to floating point",
)


@dataclass(frozen=True)
class PrivacyStatement:
    """A differential-privacy statement, after "How to DP-fy ML" (arXiv 2303.00654, section 5.3).

    Attributes:
        epsilon: an upper bound on what was spent, by `accountant`.
        delta: the probability with which the guarantee may fail.
        noise_multiplier: standard deviation of the noise in units of `clip`.
        clip: the norm to which each record's gradient was clipped.
        sampling_rate: probability of a record to be in a batch.
        steps: number of noisy releases.
        accountant: how epsilon was computed.
        neighbouring: the relation between neighbouring datasets.
        unit: what is protected.
        sampling: how batches were drawn.
        released: what the account covers.
        randomness: where noise and sampling came from.
        isolation: what `check` said of the model. Where it is not "proven", epsilon holds only if
            the records are isolated all the same.
        not_covered: what the account does not cover.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    clip: float
    sampling_rate: float
    steps: int
    accountant: str
    randomness: str
    isolation: str
    neighbouring: str = "one record added or removed"
    unit: str = "one training record"
    sampling: str = "Poisson: each record independently in each batch"
    released: tuple[str, ...] = ("the noisy sum of clipped gradients at each step",)
    not_covered: tuple[str, ...] = NOT_COVERED

    @property
    def is_sound(self) -> bool:
        """Whether the records were proven to be isolated, without which epsilon may be void."""
        return self.isolation.startswith("proven")

    def to_dict(self) -> dict[str, Any]:
        """The statement as plain data."""
        return asdict(self)

    def to_json(self) -> str:
        """The statement as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        lines = [
            f"({self.epsilon:.4g}, {self.delta:g})-differential privacy for {self.unit}"
            f"{'' if self.is_sound else ' IF its records were isolated: ' + self.isolation}",
            f"  neighbouring datasets: {self.neighbouring}",
            f"  sampling: {self.sampling}; rate {self.sampling_rate:.4g}, {self.steps} steps",
            f"  noise multiplier {self.noise_multiplier:.4g} at clipping norm {self.clip:g}",
            f"  accountant: {self.accountant}",
            f"  randomness: {self.randomness}",
            f"  record isolation: {self.isolation}",
            *[f"  covered: {item}" for item in self.released],
            *[f"  not covered: {item}" for item in self.not_covered],
        ]
        return "\n".join(lines)
