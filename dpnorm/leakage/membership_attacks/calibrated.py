"""The loss calibrated by each record's difficulty, of Watson et al. (arXiv 2111.08440)."""

import numpy as np

from dpnorm.errors import unknown_name
from dpnorm.leakage.membership_attacks.loss_threshold import loss_threshold
from dpnorm.leakage.membership_attacks.shadows import (
    Floats,
    mean_of_shadows,
    require_models,
    require_shadows,
)
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register


@register("calibrated")
def calibrated(pool: Pool, *, shadows: str = "all") -> Floats:
    """Score[m, n] = s[m, n] - mean of s[k, n] over the shadows k, with s = -cross entropy.

    The shadows' mean says how hard the record is for any model; what is left is what this model
    knows of it in particular. The formula is the "difficulty calibration" of Watson, Guo,
    Cormode and Sablayrolles (arXiv 2111.08440): the score minus its expectation over models
    trained on other data of the same distribution. Views are averaged first, as in the attack
    "loss".

    Args:
        pool: at least 2 models.
        shadows: "out": the shadows that did not see the record, as in that paper, whose reference
            models are trained on data apart from the target's. "all" (default): every other
            model. As half of them saw the record, that is in expectation the midpoint of the
            "in" and the "out" mean, the threshold per record of Sablayrolles et al.
            (arXiv 1908.11229); it needs no membership at all and serves the smallest pools.

    Returns:
        float64[M, N].

    Raises:
        InputError: fewer than 2 models, or "out" where a target has no such shadow.
    """
    if shadows not in ("all", "out"):
        raise unknown_name("shadows", shadows, ["all", "out"])
    require_models(pool.models, 2, "calibrated loss")
    side = ~pool.keep if shadows == "out" else np.ones_like(pool.keep)
    if shadows == "out":
        require_shadows(side, "out of", 1, "calibrated loss with shadows='out'")
    signal = loss_threshold(pool)
    # Deviations from the record's mean: the same differences, and no cancellation of large losses
    signal -= signal.mean(axis=0)
    scores: Floats = signal - mean_of_shadows(signal, side)
    return scores
