"""The global loss threshold of Yeom et al. (arXiv 1709.01604)."""

import numpy as np
from numpy.typing import NDArray

from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register
from dpnorm.leakage.signals import log_odds


@register("loss")
def loss_threshold(pool: Pool) -> NDArray[np.float64]:
    """Score = -cross entropy, averaged over the views: a member's loss is lower.

    The same threshold serves all records, so it needs no shadow models. The loss is computed as
    log(1 + exp(-log_odds)), which keeps apart losses that a softmax would round to 0.

    Returns:
        float64[M, N].
    """
    scores: NDArray[np.float64] = -np.logaddexp(0.0, -log_odds(pool)).mean(axis=-1)
    return scores
