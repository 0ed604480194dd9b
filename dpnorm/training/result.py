"""What a training returns."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from dpnorm.privacy import PrivacyStatement
from dpnorm.training.history import History


@dataclass(frozen=True)
class TrainedModel:
    """A trained copy of the model.

    Attributes:
        model: in evaluation mode.
        history: a table with a row, a dict, for each epoch; it prints itself.
        accuracy: on the test records; NaN where there are none.
        statement: of privacy; None for plain training.
    """

    model: nn.Module
    history: History
    accuracy: float
    statement: PrivacyStatement | None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the weights, as plain data."""
        return {
            "accuracy": self.accuracy,
            "history": [dict(row) for row in self.history],
            "statement": None if self.statement is None else self.statement.to_dict(),
        }
