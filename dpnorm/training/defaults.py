"""What a training does where its user has not said: found on other data, see docs/training.md."""

from typing import Any


def recommended(records: int, *, private: bool, optimizer: str) -> dict[str, Any]:
    """Epochs, batch size, learning rate, momentum and decay of the average.

    Args:
        records: for training.
        private: whether each step adds noise.
        optimizer: "sgd" or "adamw".
    """
    if not private:
        rate = 0.1 if optimizer == "sgd" else 1e-3
        return {
            "epochs": 20,
            "batch_size": min(64, records),
            "lr": rate,
            "momentum": 0.9,
            "ema": 0.0,
        }
    return {
        "epochs": 15,
        "batch_size": min(records, max(64, round(records / 16))),
        "lr": 0.5 if optimizer == "sgd" else 2e-3,
        "momentum": 0.0,
        "ema": 0.9,
    }
