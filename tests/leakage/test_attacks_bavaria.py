"""BaVarIA against a plain loop over the conjugate update, and against what a prior is for."""

import numpy as np
import pytest
from scipy import integrate
from scipy.special import log_softmax
from scipy.stats import invgamma, norm, t

from dpnorm.leakage import Pool, attack, draw_membership
from dpnorm.leakage.membership_attacks.bavaria_prior import fit_priors
from tests.leakage.attack_pools import gaussian_pool, shadow_lists


def signal_of(pool: Pool) -> np.ndarray:
    log_p = log_softmax(pool.logits.astype(np.float64), axis=-1)
    columns = [np.exp(log_p[:, n, :, pool.labels[n]]) for n in range(pool.records)]
    return np.stack([np.log(p / (1 - p)).mean(axis=1) for p in columns], axis=1)


def loop_prior(sides: list[list[float]]) -> tuple[float, float, float, float]:
    """(location, kappa, alpha, beta) from the shadows of each record on one side, by moments."""
    many = [np.array(s) for s in sides if len(s) > 1]
    some = [np.array(s) for s in sides if len(s)]
    freedom = sum(len(s) - 1 for s in many)
    variance = sum(((s - s.mean()) ** 2).sum() for s in many) / freedom
    square = sum(((s - s.mean()) ** 2).sum() ** 2 / (len(s) + 1) for s in many) / freedom
    alpha = 2 + 1 / max(square / variance**2 - 1, 1 / 998)
    means = np.array([s.mean() for s in some])
    between = means.var() - variance * np.mean([1 / len(s) for s in some])
    return means.mean(), variance / max(between, variance / 1e6), alpha, variance * (alpha - 1)


def loop_predictive(value: float, shadows: list[float], prior: tuple[float, ...]) -> float:
    """The textbook update one shadow after another, then Student's t."""
    location, kappa, alpha, beta = prior
    for x in shadows:
        beta += kappa * (x - location) ** 2 / (2 * (kappa + 1))
        location = (kappa * location + x) / (kappa + 1)
        kappa, alpha = kappa + 1, alpha + 0.5
    scale = np.sqrt(beta * (kappa + 1) / (alpha * kappa))
    return t.logpdf(value, 2 * alpha, location, scale)


@pytest.mark.parametrize(("models", "views"), [(6, 1), (14, 1), (14, 3)])
def test_bavaria_equals_the_loop_even_where_a_side_has_no_shadow(models, views):
    pool = gaussian_pool(models=models, records=50, views=views, shift=1.0)
    signal = signal_of(pool)
    expected = np.empty(pool.keep.shape)
    for m in range(models):
        pairs = [shadow_lists(signal, pool.keep, m, n) for n in range(pool.records)]
        prior_in, prior_out = loop_prior([i for i, _ in pairs]), loop_prior([o for _, o in pairs])
        for n, (inside, outside) in enumerate(pairs):
            expected[m, n] = loop_predictive(signal[m, n], inside, prior_in)
            expected[m, n] -= loop_predictive(signal[m, n], outside, prior_out)
    np.testing.assert_allclose(attack(pool, "bavaria").scores, expected, rtol=1e-6, atol=1e-6)


def test_the_predictive_density_is_the_integral_over_mean_and_variance():
    prior, shadows, value = (0.5, 0.7, 3.0, 2.0), [1.0, 2.5, 0.3], 1.7
    location, kappa, alpha, beta = prior

    v = np.geomspace(0.02, 200, 400)[:, None]
    mu = np.linspace(-25, 27, 2001)

    def evidence(points: list[float]) -> float:
        joint = invgamma.pdf(v, alpha, scale=beta) * norm.pdf(mu, location, np.sqrt(v / kappa))
        for x in points:
            joint = joint * norm.pdf(x, mu, np.sqrt(v))
        inner = integrate.trapezoid(joint, x=mu, axis=1)
        return float(integrate.trapezoid(inner, x=v[:, 0]))

    predictive = np.log(evidence([*shadows, value]) / evidence(shadows))
    assert loop_predictive(value, shadows, prior) == pytest.approx(predictive, abs=1e-3)


def test_the_prior_is_recovered_from_a_pool_drawn_from_it():
    # 4,000 records: the moments' standard errors are some 3% (V) to 15% (alpha); tolerances of 4
    generator = np.random.default_rng(8)
    keep = draw_membership(4000, 16, 8)
    variance = invgamma.rvs(6.0, scale=10.0, size=4000, random_state=generator)
    mean = 3.0 + np.sqrt(variance / 0.5) * generator.normal(size=4000)
    signal = mean + np.sqrt(variance) * generator.normal(size=keep.shape)
    for prior in fit_priors(signal, keep):
        assert prior.location == pytest.approx(np.full((16, 1), 3.0), abs=0.15)
        assert prior.kappa == pytest.approx(np.full((16, 1), 0.5), rel=0.15)
        assert prior.alpha == pytest.approx(np.full((16, 1), 6.0), rel=0.6)
        expected = 10.0 / 5.0
        assert prior.beta / (prior.alpha - 1) == pytest.approx(np.full((16, 1), expected), rel=0.1)


def uneven_pool(models: int) -> Pool:
    """Records of unequal variance whose members are one of their own deviations higher."""
    generator = np.random.default_rng([43, models])
    keep = draw_membership(1500, models, models)
    deviation = np.exp(0.8 * generator.normal(size=1500))
    odds = 2 * generator.normal(size=1500)
    odds = odds + deviation * (generator.normal(size=keep.shape) + keep)
    logits = np.zeros((*keep.shape, 1, 2), dtype=np.float32)
    logits[:, :, 0, 1] = odds
    return Pool(keep, logits, np.ones(1500, int), np.zeros(1500, bool), np.zeros(models))


def test_with_few_shadows_and_unequal_variances_the_prior_finds_more_members_than_lira():
    for models in (16, 24):
        pool = uneven_pool(models)
        lira, bavaria = (attack(pool, name).tpr_at_fpr(0.01) for name in ("lira", "bavaria"))
        assert bavaria.value > 1.2 * lira.value


def test_with_equal_variances_bavaria_reaches_the_closed_form_auc():
    # As for LiRA: Phi(1 / sqrt 2), the shadows' means add 1/64 of variance; 4 standard errors
    pool = gaussian_pool(models=128, records=200, shift=1.0)
    assert attack(pool, "bavaria").auc.value == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)
