"""Games in which an observer says whether a record was in the data, and how often it is right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE = 0.999


@dataclass(frozen=True, eq=False)
class Games:
    """What came of some games.

    Attributes:
        coins: bool[games], whether the record was in the data.
        signal: float64[games], what the observer saw, in one number: positive says that it was.
    """

    coins: NDArray[np.bool_]
    signal: NDArray[np.float64]

    @property
    def right(self) -> Estimate:
        """The share of games in which the observer is right, with a Clopper-Pearson interval."""
        right = int(((self.signal > 0) == self.coins).sum())
        found = stats.binomtest(right, len(self.coins)).proportion_ci(CONFIDENCE, "exact")
        share = right / len(self.coins)
        return Estimate(share, float(found.low), float(found.high), CONFIDENCE)


def fair_coins(games: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """One a game."""
    return generator.random(games) < 0.5


def play_after_practice(
    see: Callable[[bool], NDArray[np.float64]],
    practice: int,
    games: int,
    generator: np.random.Generator,
) -> Games:
    """Games of an observer that learns in others how both cases differ.

    It compares what it sees with the middle between the means of both cases, along the line from
    the one to the other, each number in units of its spread.

    Args:
        see: what is seen in a game, (features,), by whether the record is in the data.
        practice: games of either case to learn from.
        games: that count.
        generator: tosses the coins.
    """
    learned = [np.stack([see(case) for _ in range(practice)]) for case in (False, True)]
    spread = np.sqrt(np.mean([part.var(0) for part in learned], axis=0))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    without, added = (part.mean(0) * scale for part in learned)
    coins = fair_coins(games, generator)
    seen = np.stack([see(bool(coin)) for coin in coins]) * scale
    return Games(coins, (seen - (without + added) / 2) @ (added - without))


def histogram(games: Games, variant: str, what: str) -> "Figure":
    """The signal with and without the record, in the colours of a variant.

    Args:
        games: that were played.
        variant: with which normalization.
        what: the signal is, in words.
    """
    from dpnorm.figures import legend_below, look, new_figure

    figure, axes = new_figure()
    edge = 1.05 * float(np.abs(games.signal).max()) or 1.0
    bins = np.linspace(-edge, edge, 41).tolist()
    kinds = ((~games.coins, "none", "without the record"), (games.coins, variant, "with it"))
    for which, like, label in kinds:
        axes.hist(games.signal[which], bins, alpha=0.6, color=look(like).light, label=label)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel(what)
    axes.set_ylabel("games")
    axes.set_title(f"What the observer sees: {variant} normalization")
    legend_below(figure, axes)
    return figure
