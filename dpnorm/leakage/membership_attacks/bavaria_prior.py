"""Normal-inverse-gamma priors fitted to the records of a pool by their moments."""

from dataclasses import dataclass

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.membership_attacks.shadows import Bools, Floats, Shadows, blocks

_FLOOR = 1e-6  # smallest variance, as in LiRA
_FIRMEST_ALPHA = 1000.0  # records whose variances differ by no more than chance
_KAPPAS = (1e-6, 1e6)
_RECORDS = 3  # where the number of records stands among the sums


@dataclass(frozen=True, eq=False)
class Prior:
    """v ~ InverseGamma(alpha, beta), mu | v ~ N(location, v / kappa); each float64[M, 1]."""

    location: Floats
    kappa: Floats
    alpha: Floats
    beta: Floats


def fit_priors(signal: Floats, keep: Bools) -> tuple[Prior, Prior]:
    """The priors of "in" and "out" for each target model, from the other models' signals.

    Moments (f = count - 1 and S = scatter of a record; sums over the records of one side):

    - E[v] = V = sum S / sum f;
    - E[v^2] = Q = sum (S^2 / (f + 2)) / sum f, as E[S^2 | v] = f (f + 2) v^2;
      an inverse gamma has Q / V^2 = (alpha - 1) / (alpha - 2), hence
      alpha = 2 + 1 / (Q / V^2 - 1), at most 1000, and beta = V (alpha - 1);
    - location: the mean of the records' means; their variance is E[v] / kappa + V mean(1 / count),
      hence kappa.

    Args:
        signal: float64[M, N].
        keep: bool[M, N].

    Raises:
        InputError: no record has two shadows on one side, or a side has no shadow at all.
    """
    inside, outside = np.zeros((2, 7, len(keep), 1))
    for block in blocks(*signal.shape):
        values, side = signal[:, block], keep[:, block]
        inside += _sums(Shadows.of(values, side))
        outside += _sums(Shadows.of(values, ~side))
    for name, side_sums in (("in", inside), ("out", outside)):
        if (side_sums[_RECORDS] == 0).any():
            raise InputError(
                f"BaVarIA needs shadows in and out; for some target model none of the other "
                f"models is {name} for any of the {keep.shape[1]} records: draw the membership "
                "with draw_membership, or train more models"
            )
    freedom, scatter, *_ = inside + outside
    if (freedom == 0).any():
        raise InputError(
            "BaVarIA's prior needs a record with two shadows on one side; for some target model "
            f"none of the {keep.shape[1]} records has: train more models"
        )
    common = scatter / freedom
    return _prior(inside, common), _prior(outside, common)


def _sums(shadows: Shadows) -> Floats:
    """The sums over the records that the moments need: float64[7, M, 1], unpacked in `_prior`."""
    has = shadows.count > 0
    terms = (
        shadows.freedom,
        shadows.scatter,
        shadows.scatter**2 / (shadows.freedom + 2),
        has,
        shadows.mean,  # 0 where there is no shadow
        shadows.mean**2,
        has / np.maximum(shadows.count, 1.0),
    )
    return np.stack([term.sum(axis=1, keepdims=True) for term in terms]).astype(np.float64)


def _prior(sums: Floats, common: Floats) -> Prior:
    """A side on which no record has two shadows takes the variance of both, as if all shared it."""
    freedom, scatter, scatter2, records, means, means2, inverses = sums
    variance = np.divide(scatter, freedom, out=common.copy(), where=freedom > 0)
    variance = np.maximum(variance, _FLOOR)
    square = np.divide(scatter2, freedom, out=variance**2, where=freedom > 0)
    excess = np.maximum(square / variance**2 - 1, 1 / (_FIRMEST_ALPHA - 2))
    alpha = 2 + 1 / excess
    location = means / records
    between = means2 / records - location**2 - variance * inverses / records
    kappa = np.clip(variance / np.maximum(between, variance / _KAPPAS[1]), *_KAPPAS)
    return Prior(location, kappa, alpha, variance * (alpha - 1))
