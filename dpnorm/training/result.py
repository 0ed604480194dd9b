"""What a training returns."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from dpnorm.privacy import PrivacyStatement


@dataclass(frozen=True)
class TrainedModel:
    """A trained copy of the model.

    Attributes:
        model: in evaluation mode.
        history: a dict for each epoch: epoch, step, loss (mean over the epoch's records).
        accuracy: on the test records.
        statement: of privacy; None for plain training.
    """

    model: nn.Module
    history: tuple[dict[str, float], ...]
    accuracy: float
    statement: PrivacyStatement | None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the weights, as plain data."""
        return {
            "accuracy": self.accuracy,
            "history": list(self.history),
            "statement": None if self.statement is None else self.statement.to_dict(),
        }
