"""What a model says about a record's label, as one stable number."""

import numpy as np
from numpy.typing import NDArray

from dpnorm.leakage.pool import Pool


def log_odds(pool: Pool) -> NDArray[np.float64]:
    """The logit-scaled confidence log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits.

    Computed from the logits, it does not saturate where p_y rounds to 1. The cross entropy is
    log(1 + exp(-log_odds)).

    Returns:
        float64[M, N, A].
    """
    models, records, views, _ = pool.logits.shape
    odds = np.empty((models, records, views))
    label = pool.labels[:, None, None]
    for m, logits in enumerate(pool.logits):
        others = logits.astype(np.float64)
        own = np.take_along_axis(others, label, axis=-1)
        np.put_along_axis(others, label, -np.inf, axis=-1)
        top = others.max(axis=-1, keepdims=True)
        rest = top + np.log(np.exp(others - top).sum(axis=-1, keepdims=True))
        odds[m] = (own - rest)[..., 0]
    return odds
