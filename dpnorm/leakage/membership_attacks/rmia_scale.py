"""Offline RMIA's scale a, tuned on a paired model (arXiv 2312.03262)."""

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.membership_attacks.shadows import Bools, Floats
from dpnorm.leakage.ranking import Ranking

_GRID = np.arange(11) / 10
_RECORDS = 10_000


def tune_scale(probability: Floats, keep: Bools) -> Floats:
    """The a of each target model that attacks its paired model best: float64[M].

    Models 2i and 2i + 1 are a pair; a last model without a partner takes the one before it. The
    paired model plays the target, its memberships known to the attacker, who takes the a of
    0, 0.1, ..., 1 with the highest AUC (the lowest such a). The "out" shadows are the models other
    than both, so that nothing chosen for a target in model m has read model m.

    Within one model RMIA's score rises with the ratio p(x | model) / p(x), so the AUC is that of
    the ratio and needs no comparison with z. At most 10,000 records, evenly spaced, are used.

    Args:
        probability: float64[M, N], p(x | model), positive.
        keep: bool[M, N].

    Raises:
        InputError: a paired model with no member or no non-member among the records that have
            an "out" shadow left.
    """
    step = -(-probability.shape[1] // _RECORDS)
    probability, keep = probability[:, ::step], keep[:, ::step]
    models = len(keep)
    out = (~keep).astype(np.float64)
    outside = probability * out
    scale = np.empty(models)
    for m in range(models):
        pair = m ^ 1 if m ^ 1 < models else m - 1
        rest = np.ones(models)
        rest[[m, pair]] = 0.0
        count = rest @ out
        known = count > 0
        mean = (rest @ outside)[known] / count[known]
        target, member = probability[pair, known], keep[pair, known]
        if member.all() or not member.any():
            raise InputError(
                f"RMIA's a cannot be tuned for model {m}: of the {len(member)} records with an "
                f"'out' shadow its paired model {pair} saw {int(member.sum())}; at least 1 seen "
                "and 1 not seen are needed: give a (0.3, say), or train more models"
            )
        scale[m] = _GRID[np.argmax([_auc(target, member, mean, a) for a in _GRID])]
    return scale


def _auc(target: Floats, member: Bools, mean_out: Floats, a: float) -> float:
    ratio = target / ((1 + a) * mean_out + (1 - a))
    curve = Ranking.of(ratio[None], member[None]).curve()
    assert curve is not None  # there are members and non-members
    return curve.area
