"""The robust membership inference attack RMIA of Zarifzadeh et al. (arXiv 2312.03262)."""

import numpy as np
from scipy.special import expit

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.membership_attacks.rmia_scale import tune_scale
from dpnorm.leakage.membership_attacks.shadows import (
    Floats,
    mean_of_shadows,
    require_models,
    require_shadows,
)
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register
from dpnorm.leakage.signals import log_odds

_FLOOR = 1e-200  # keeps each ratio finite where a softmax gives the label no probability


@register("rmia")
def rmia(pool: Pool, *, mode: str = "online", gamma: float = 1.0, a: float | None = None) -> Floats:
    """Score[m, x] = share of the records z with ratio(x) > gamma * ratio(z).

    ratio(x) = p(x | model m) / p(x), where p(x | model) is the softmax probability of x's label
    and p(x) what models of the same kind give it on average, estimated without model m:

    - online: p(x) = (mean over "in" shadows + mean over "out" shadows) / 2;
    - offline: p(x) = ((1 + a) * mean over "out" shadows + (1 - a)) / 2, as if the "in" mean
      were a * (the "out" mean) + (1 - a).

    **The population.** The paper compares x with records z that no model was trained on; a pool
    has none. Here z runs over all the other records of the pool, and p(z) is estimated from the
    shadows just as p(x) is. Choosing among them those that model m was not trained on would read
    memberships that the attack is to guess, so none is left out: no membership of model m, of x or
    of any z, enters a score in model m. The price is small. Within one model the score rises
    with ratio(x) whichever z are taken, so they change no order there (except for ties); they set
    the scale on which models are compared. Half of the z are members, which lowers the scores of
    all models alike, and how many varies by about sqrt(N) / 2 from model to model, which blurs
    the comparison: members told apart without error have a pooled AUC of 0.996 with 200 records.

    The probabilities of several views are averaged first, for x and for z (our choice).

    Args:
        pool: at least 2 models; 3 where `a` is tuned.
        mode: "online" or "offline".
        gamma: above 0; the paper finds the attack not sensitive to it.
        a: offline only, from 0 to 1. Default: tuned for each target model on a paired model
            (`tune_scale`).

    Returns:
        float64[M, N], each a multiple of 1 / (N - 1).

    Raises:
        InputError: too few models, fewer than 2 records, a target without the shadows that its
            mode uses, an option out of range, or `a` given for "online".
    """
    if mode not in ("online", "offline"):
        raise unknown_name("mode", mode, ["online", "offline"])
    _check_numbers(mode, gamma, a)
    if pool.records < 2:
        raise InputError("RMIA compares a record with others; the pool has 1 record, 2 are needed")
    tuned = mode == "offline" and a is None
    require_models(pool.models, 3 if tuned else 2, f"{mode} RMIA")
    require_shadows(~pool.keep, "out of", 1, f"{mode} RMIA")
    if mode == "online":
        require_shadows(pool.keep, "in", 1, "online RMIA")
    signal = np.maximum(expit(log_odds(pool)).mean(axis=-1), _FLOOR)
    reference = mean_of_shadows(signal, ~pool.keep)
    if mode == "online":
        reference += mean_of_shadows(signal, pool.keep)
    else:
        scale = tune_scale(signal, pool.keep) if a is None else np.full(pool.models, a)
        reference *= (1 + scale)[:, None]
        reference += (1 - scale)[:, None]
    ratio = np.divide(2 * signal, reference, out=reference)
    return np.stack([_dominated(row, gamma) for row in ratio])


def _dominated(ratio: Floats, gamma: float) -> Floats:
    """For each record x of one model, the share of the others z with gamma * r(z) < r(x)."""
    below = np.searchsorted(np.sort(ratio) * gamma, ratio, side="left")
    below -= gamma * ratio < ratio  # x itself is not one of its z
    return below / (len(ratio) - 1)


def _check_numbers(mode: str, gamma: float, a: float | None) -> None:
    if not 0 < gamma < np.inf:
        raise InputError(f"gamma is {gamma}; a finite number above 0 is needed")
    if a is not None and mode == "online":
        raise InputError(
            f"a = {a} was given with mode 'online', which estimates p(x) from both sides and has "
            "no a: leave it out or take mode='offline'"
        )
    if a is not None and not 0 <= a <= 1:
        raise InputError(f"a is {a}; a number from 0 to 1 is needed")
