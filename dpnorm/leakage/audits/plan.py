"""Which canaries will be guessed, decided before anyone has seen a score."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.audits.inputs import require_count, require_scores

Guesses = NDArray[np.int8]
"""int8[m]: +1 in, -1 out, 0 no guess."""

DEFAULT_SHARES = (0.1, 0.4)
"""Of the canaries, half from each end: judged together (`GuessPlan.two_sided`)."""


@dataclass(frozen=True, kw_only=True)
class GuessPlan:
    """How many of the highest scores will be guessed in, and how many of the lowest out.

    A bound may believe the guesses only if their number was chosen without knowing who is a
    member. A plan holds no scores, and `guess` takes no membership, so that the wrong order cannot
    happen by accident: what remains is not to try several plans on the same canaries.

    Except plans that are fixed together: a plan may hold alternatives. All are judged, each with an
    equal part of the error, and the largest bound counts.

    >>> GuessPlan(highest=1, lowest=2).guess([0.3, 2.5, -1.0, 0.1]).tolist()
    [0, 1, -1, -1]

    Attributes:
        highest: how many of the highest scores are guessed in.
        lowest: how many of the lowest scores are guessed out.
        seed: of the permutation that orders equal scores. It knows nothing of the membership,
            where the order of the canaries might (members first, say).
        alternatives: further plans, without alternatives of their own.

    Raises:
        InputError: negative numbers, no guess at all, or alternatives of alternatives.
    """

    highest: int
    lowest: int
    seed: int = 0
    alternatives: tuple["GuessPlan", ...] = ()

    def __post_init__(self) -> None:
        require_count("highest", self.highest)
        require_count("lowest", self.lowest)
        require_count("seed", self.seed)
        if self.guesses == 0:
            raise InputError("highest and lowest are both 0; a plan needs at least one guess")
        if any(plan.alternatives for plan in self.alternatives):
            raise InputError("an alternative has alternatives itself; name all in one plan")

    @classmethod
    def two_sided(
        cls, canaries: int, share: float | Iterable[float] = DEFAULT_SHARES, *, seed: int = 0
    ) -> "GuessPlan":
        """The default: a tenth of the canaries or two fifths, half of them from each end.

        Two-sided, as the lowest scores are about as telling as the highest: twice the guesses at
        the same rate of errors. Fewer guesses lower the ceiling, more let in errors; which matters
        depends on how much leaks, which nobody knows before. Mean one-run bounds of 20 simulated
        audits (delta 1e-5, 95%), scores N(0, 1) and N(mu, 1); the last column is the default:

            canaries  mu   5%    10%   20%   40%   80%   10% or 40%
            500       1   1.29  1.39  1.43  1.22  0.83  1.35
            500       2   1.93  2.61  2.92  2.80  1.89  2.71
            500       3   2.00  2.77  3.48  3.92  3.35  3.73
            500       4   2.00  2.77  3.48  4.18  4.60  3.97
            5000      1   2.10  1.99  1.74  1.40  0.95  1.94
            5000      2   3.99  4.14  3.93  3.25  2.10  3.99
            5000      3   4.24  4.94  5.58  5.71  3.87  5.54
            5000      4   4.28  4.98  5.67  6.35  6.12  6.08

        Args:
            canaries: m, at least 2.
            share: of the canaries, in (0, 1]; at least one is guessed at each end. Several shares
                are alternatives.
            seed: as of the plan.

        Raises:
            InputError: fewer than 2 canaries, no share, or a share out of range.
        """
        canaries = require_count("canaries", canaries, 2)
        shares = tuple(share) if isinstance(share, Iterable) else (share,)
        if not shares:
            raise InputError("share is empty; name at least one, such as 0.1")
        for each in shares:
            if not 0 < each <= 1:
                raise InputError(f"share is {each!r}; it must be above 0 and at most 1")
        sizes = dict.fromkeys(max(1, int(each * canaries / 2)) for each in shares)
        first, *others = (cls(highest=size, lowest=size, seed=seed) for size in sizes)
        return dataclasses.replace(first, alternatives=tuple(others))

    @property
    def guesses(self) -> int:
        """How many canaries are guessed, by the plan itself."""
        return self.highest + self.lowest

    def guess(self, scores: Any) -> Guesses:
        """Guesses the membership of each canary from its score alone, by the plan itself.

        Args:
            scores: float[m], higher for members; at least as many as the plan guesses.

        Returns:
            int8[m]: +1 for the `highest` highest scores, -1 for the `lowest` lowest, else 0.

        Raises:
            InputError: scores of another shape, NaN or infinite, or fewer than the guesses.
        """
        values = require_scores(scores)
        if self.guesses > values.size:
            raise InputError(
                f"the plan guesses {self.highest} highest and {self.lowest} lowest of "
                f"{values.size} scores; each canary is guessed at most once"
            )
        order = ranking(values, self.seed)
        guesses = np.zeros(values.size, dtype=np.int8)
        guesses[order[: self.lowest]] = -1
        guesses[order[values.size - self.highest :]] = 1
        return guesses

    def __str__(self) -> str:
        own = f"the {self.highest} highest scores guessed in, the {self.lowest} lowest out"
        if not self.alternatives:
            return own
        others = "".join(f", or {plan.highest} and {plan.lowest}" for plan in self.alternatives)
        return f"{own}{others}, at 1/{1 + len(self.alternatives)} of the error each"


def ranking(scores: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The canaries by ascending score; equal scores in an order drawn from the seed."""
    permutation = np.random.default_rng(seed).permutation(scores.size)
    return np.lexsort((permutation, scores))
