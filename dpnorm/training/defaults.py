"""What a training does where its user has not said: found on other data, see docs/training.md."""

from typing import Any

from dpnorm.privacy import PrivacyConfig

LEAST_BATCH = 64
SHARE = 16  # of the records, one part of so many is a private batch
RATES = (0.5, 4.0)  # between these the learning rate of SGD is epsilon, in clipping norms
UNKNOWN = 3.0  # epsilon where only the noise was given


def recommended(records: int, privacy: PrivacyConfig | None, optimizer: str) -> dict[str, Any]:
    """Epochs, batch size, learning rate, momentum and decay of the average.

    Args:
        records: for training.
        privacy: None for plain training.
        optimizer: "sgd" or "adamw".
    """
    if privacy is None:
        return {
            "epochs": 20,
            "batch_size": min(64, records),
            "lr": 0.1 if optimizer == "sgd" else 1e-3,
            "momentum": 0.9,
            "ema": 0.0,
        }
    rate = min(max(privacy.epsilon or UNKNOWN, RATES[0]), RATES[1])
    return {
        "epochs": 15,
        "batch_size": min(records, max(LEAST_BATCH, round(records / SHARE))),
        # gradients are as long as the clipping norm, which AdamW takes out again
        "lr": rate / privacy.clip if optimizer == "sgd" else 5e-3,
        "momentum": 0.0,
        "ema": 0.9,
    }
