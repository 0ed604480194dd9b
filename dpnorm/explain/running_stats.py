"""Topic `running-stats`: what a BatchNorm publishes of its records without any gradient."""

import copy
import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.games import CONFIDENCE, histogram, play_after_practice
from dpnorm.explain.pair import RECORDS, Pair
from dpnorm.leakage.estimate import Estimate

STEPS, RATE, PRACTICE, GAMES, SEED = 6, 0.5, 60, 400, 0


def measure(subject: str = "batch", control: str = "frozen") -> Measured:
    """Plays the game with the buffers of either normalization.

    Args:
        subject: the variant whose buffers are said to tell.
        control: the variant whose buffers are said to tell nothing.
    """
    numbers: dict[str, float | Estimate] = {}
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "records": RECORDS, "steps": STEPS, "rate": RATE,
        "practice": 2 * PRACTICE, "games": GAMES, "confidence": f"{CONFIDENCE:.1%}",
    }  # fmt: skip
    pictures, rights, moves = [], {}, {}
    for who, variant in (("subject", subject), ("control", control)):
        pair = Pair(variant)
        for kind, record in (("outlier", pair.x[RECORDS:]), ("digit", pair.another)):
            layer = _Layer(pair, record)
            games = play_after_practice(
                layer.published, PRACTICE, GAMES, np.random.default_rng(SEED)
            )
            moves[kind, who] = layer.moves()
            rights[kind, who] = numbers[f"{kind}_{who}"] = games.right
            if kind == "outlier":
                numbers[f"factor_{who}"] = layer.factor()
                pictures.append(
                    Picture(
                        variant,
                        f"What the buffers say in {GAMES} games with {variant} normalization, in "
                        "one number: right of 0 the observer says that the outlier was there.",
                        functools.partial(
                            histogram, games, variant, "what the buffers say, in one number"
                        ),
                    )
                )
    claims = (
        Claim(
            f"with {subject} normalization the buffers tell whether the outlier was there",
            rights["outlier", "subject"].low > 0.8,
        ),
        Claim(
            f"with {subject} normalization they say more of an outlier than of a digit",
            rights["outlier", "subject"].low > rights["digit", "subject"].high,
        ),
        Claim(
            f"with {control} normalization they do not move, and tell nothing of either",
            all(
                right.low <= 0.5 <= right.high and not moves[kind, who]
                for (kind, who), right in rights.items()
                if who == "control"
            ),
        ),
    )
    return Measured(numbers, settings, claims, tuple(pictures))


class _Layer:
    """The first convolution of a network and its normalization, and what they publish."""

    def __init__(self, pair: Pair, record: Tensor) -> None:
        convolution, self._normalization, *_ = pair.network.children()
        with torch.no_grad():  # its weights stay as they are
            self._x = convolution(torch.cat([pair.x[:RECORDS], record]))
        self._generator = torch.Generator().manual_seed(SEED)

    def published(self, added: bool) -> NDArray[np.float64]:
        """(features,): the numbers in the buffers after some batches, and a zero."""
        numbers = [buffer.flatten() for buffer in self._after_batches(added).values()]
        return torch.cat([*numbers, torch.zeros(1)]).double().numpy()

    def moves(self) -> bool:
        """Whether any published number moves at all, with the record or without it."""
        before = {name: b.clone() for name, b in self._normalization.named_buffers()}
        return any(
            not torch.equal(buffer, before[name])
            for added in (True, False)
            for name, buffer in self._after_batches(added).items()
        )

    def factor(self) -> float:
        """By which the mean of the published variances grows with the record."""
        with_it, without = (
            np.mean([self._variance(added) for _ in range(PRACTICE)]) for added in (True, False)
        )
        return float(with_it / without)

    def _variance(self, added: bool) -> float:
        buffers = self._after_batches(added)
        return float(buffers["running_var"].mean()) if "running_var" in buffers else 1.0

    def _after_batches(self, added: bool) -> dict[str, Tensor]:
        normalization = copy.deepcopy(self._normalization)
        records = self._x if added else self._x[:RECORDS]
        with torch.no_grad():
            for _ in range(STEPS):
                chosen = torch.rand(len(records), generator=self._generator) < RATE
                normalization(records[chosen])
        return {name: b for name, b in normalization.named_buffers() if b.is_floating_point()}
