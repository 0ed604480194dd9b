"""From the mu of a Gaussian trade-off to epsilon."""

import functools

from dpnorm.errors import InputError


def require_positive(delta: float) -> None:
    """Raises InputError at delta = 0, where no Gaussian trade-off has a finite epsilon."""
    if delta == 0:
        raise InputError(
            "delta is 0; a Gaussian trade-off has no finite epsilon there: give a delta above 0, "
            "or take a bound that assumes no family"
        )


@functools.lru_cache(maxsize=4096)
def epsilon_of_mu(mu: float, delta: float) -> float:
    """The epsilon that mu-Gaussian differential privacy is equivalent to at delta > 0.

    The root of Phi(mu / 2 - e / mu) - exp(e) Phi(-mu / 2 - e / mu) = delta, or 0 where delta is
    larger than that at e = 0 (arXiv 1905.02383, corollary 2.13).
    """
    from dpnorm.detection.sensitivity import gaussian_epsilon  # imports torch: only when needed

    return gaussian_epsilon(mu, delta)
