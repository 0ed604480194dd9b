"""LiRA's ratio with a prior on each record's mean and variance, after BaVarIA (arXiv 2603.11799).

Brännvall, "Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA", replaces
LiRA's switch between fixed and per-example variance by a conjugate normal-inverse-gamma prior;
the predictive distribution of the target's signal is then a Student t. From the paper we have
that idea. The choice of the hyperparameters (`bavaria_prior`), the average over the views and
the treatment of targets without shadows are ours and need not be the paper's.
"""

import numpy as np
from scipy.special import gammaln

from dpnorm.leakage.membership_attacks.bavaria_prior import Prior, fit_priors
from dpnorm.leakage.membership_attacks.shadows import Floats, Shadows, blocks, require_models
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import register
from dpnorm.leakage.signals import log_odds


@register("bavaria")
def bavaria(pool: Pool) -> Floats:
    """Score = log t_in(s) - log t_out(s) of the target's log-odds s, averaged over the views.

    On each side ("in", "out") the log-odds of record n are N(mu, v) with a prior
    v ~ InverseGamma(alpha, beta), mu | v ~ N(mu0, v / kappa). With c shadows of mean x and
    scatter S (sum of squared deviations) the posterior is

        kappa' = kappa + c          mu' = (kappa mu0 + c x) / kappa'
        alpha' = alpha + c / 2      beta' = beta + S / 2 + kappa c (x - mu0)^2 / (2 kappa')

    and the predictive density of s is Student's t with 2 alpha' degrees of freedom, location mu'
    and squared scale beta' (kappa' + 1) / (alpha' kappa'). Few shadows leave it wide and near
    the prior, many make it LiRA's Gaussian with per-example variance; no threshold in between.
    A target with no shadow on a side is judged by the prior of that side.

    The four hyperparameters of a side are fitted to the records of the pool, for each target
    model from the other models only: **no number used for a target in model m comes from
    model m**.

    Args:
        pool: at least 3 models.

    Returns:
        float64[M, N].

    Raises:
        InputError: fewer than 3 models, a side without any shadow in the whole pool, or no record
            with two shadows on one side.
    """
    require_models(pool.models, 3, "BaVarIA")
    signal = log_odds(pool).mean(axis=-1)
    prior_in, prior_out = fit_priors(signal, pool.keep)
    table_in, table_out = _normalizers(prior_in), _normalizers(prior_out)
    scores = np.empty_like(signal)
    for block in blocks(*signal.shape):
        values, side = signal[:, block], pool.keep[:, block]
        scores[:, block] = _log_density(values, Shadows.of(values, side), prior_in, table_in)
        scores[:, block] -= _log_density(values, Shadows.of(values, ~side), prior_out, table_out)
    return scores


def _log_density(values: Floats, shadows: Shadows, prior: Prior, table: Floats) -> Floats:
    """Student's log density with 2 alpha' degrees of freedom; spread = 2 alpha' * scale^2."""
    count = shadows.count
    kappa = prior.kappa + count
    location = (prior.kappa * prior.location + count * shadows.mean) / kappa
    shift = prior.kappa * count / kappa * (shadows.mean - prior.location) ** 2
    spread = (2 * prior.beta + shadows.scatter + shift) * (kappa + 1) / kappa
    fall = (prior.alpha + (count + 1) / 2) * np.log1p((values - location) ** 2 / spread)
    top = np.take_along_axis(table, count.astype(np.intp), axis=1)
    density: Floats = top - 0.5 * np.log(np.pi * spread) - fall
    return density


def _normalizers(prior: Prior) -> Floats:
    """log Gamma(alpha' + 1/2) - log Gamma(alpha') for each model and each count of shadows.

    A count is an integer below M, so a table of M x M serves all M x N targets.
    """
    alpha = prior.alpha + np.arange(len(prior.alpha)) / 2
    table: Floats = gammaln(alpha + 0.5) - gammaln(alpha)
    return table
