"""Progress of a training on stderr: where it is, and what it has reached."""

import sys

from dpnorm.cli.progress import LiveBar, Messages, Pace


def epoch_display() -> "EpochLines | EpochBar":
    """The display of a training's epochs that fits stderr."""
    return EpochBar() if sys.stderr.isatty() else EpochLines()


class EpochLines(Messages):
    """One line an epoch."""

    def __init__(self) -> None:
        self._pace = Pace()

    def begin(self, epochs: int) -> None:
        self._pace = Pace(epochs, prepares=True)

    def epoch(self, row: dict[str, float]) -> None:
        pace = self._pace
        pace.reach(int(row["epoch"]))
        parts = [f"epoch {pace.done}/{pace.total}", describe_epoch(row), pace.left()]
        self.say("  ".join(part for part in parts if part))


class EpochBar:
    """A live bar that moves with each epoch."""

    def __init__(self) -> None:
        self._bar = LiveBar("epoch", "preparing")

    def begin(self, epochs: int) -> None:
        self._bar.begin(epochs, 0)

    def epoch(self, row: dict[str, float]) -> None:
        self._bar.reached(int(row["epoch"]), describe_epoch(row))

    def say(self, text: str) -> None:
        self._bar.say(text)

    def end(self) -> None:
        self._bar.end()


def describe_epoch(row: dict[str, float]) -> str:
    """What a row of the history says, in a few words.

    >>> describe_epoch({"epoch": 3.0, "loss": 0.912, "accuracy": 0.841, "epsilon": 1.234})
    'loss 0.912  accuracy 84.1%  epsilon 1.23'
    """
    loss = row["loss"]
    parts = [f"loss {loss:.3f}" if loss >= 0.01 else f"loss {loss:.1e}"]
    if "accuracy" in row:
        parts.append(f"accuracy {row['accuracy']:.1%}")
    if "epsilon" in row:
        parts.append(f"epsilon {row['epsilon']:.2f}")
    return "  ".join(parts)
