"""Topic `before-noise`: noise hides what is bounded, whatever was computed before it."""

import functools

import numpy as np
from scipy import stats

from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.explain.games import CONFIDENCE, Games, fair_coins, histogram
from dpnorm.explain.pair import CLIP, RECORDS, ROUNDING, Pair, clipped_sum
from dpnorm.leakage.estimate import Estimate

NOISE, GAMES, SEED = 4, 4_000, 0


def measure(subject: str = "batch", control: str = "group") -> Measured:
    """Plays the game with either normalization.

    Args:
        subject: the variant that is said to break the bound.
        control: the variant that is said to keep it.
    """
    generator = np.random.default_rng(SEED)
    allowed = _best(1.0)
    numbers: dict[str, float | Estimate] = {"allowed": allowed}
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "records": RECORDS, "clip": CLIP, "noise": NOISE,
        "games": GAMES, "confidence": f"{CONFIDENCE:.1%}",
    }  # fmt: skip
    shifts, rights, pictures = {}, {}, []
    for who, variant in (("subject", subject), ("control", control)):
        shift, games = _played(variant, generator)
        shifts[who] = numbers[f"shift_{who}"] = shift
        rights[who] = numbers[f"right_{who}"] = games.right
        numbers[f"expected_{who}"] = _best(shift)
        pictures.append(
            Picture(
                variant,
                f"Where the noisy sum stands on the line through both sums, in {GAMES} games with "
                f"{variant} normalization: the less the two histograms overlap, the more often "
                "the observer is right.",
                functools.partial(
                    histogram, games, variant, "left of 0 the noisy sum is nearer to that without"
                ),
            )
        )
    claims = (
        Claim(
            f"with {subject} normalization the observer is right more often than the noise allows",
            rights["subject"].low > allowed,
        ),
        Claim(
            f"with {control} normalization the sum moves by at most C, and the games do not show "
            "more than the noise allows",
            shifts["control"] <= 1 + ROUNDING and rights["control"].low <= allowed,
        ),
        Claim(
            "in both, the games agree with the calculation",
            all(rights[who].low <= _best(shifts[who]) <= rights[who].high for who in shifts),
        ),
    )
    return Measured(numbers, settings, claims, tuple(pictures))


def _played(variant: str, generator: np.random.Generator) -> tuple[float, Games]:
    """The movement of the sum in units of C, and games with its noisy form."""
    pair = Pair(variant)
    without, added = (clipped_sum(pair.gradients(RECORDS + more)).numpy() for more in (0, 1))
    half = ((added - without) / 2).astype(np.float32)  # from the middle to the one, or to the other
    direction = half / np.linalg.norm(half)
    coins = fair_coins(GAMES, generator)
    signal = np.empty(GAMES)
    for game, coin in enumerate(coins):
        seen = generator.standard_normal(half.shape, dtype=np.float32)
        seen *= NOISE * CLIP
        seen += half if coin else -half
        signal[game] = seen @ direction
    return float(np.linalg.norm(added - without)) / CLIP, Games(coins, signal)


def _best(shift: float) -> float:
    """How often the best observer is right, where one record moves the sum by `shift` C."""
    return float(stats.norm.cdf(shift / NOISE / 2))
