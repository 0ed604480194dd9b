"""The account of a private training: noise, epsilon, sampling and the statement about them."""

from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_spent, noise_for
from dpnorm.privacy.config import PrivacyConfig
from dpnorm.privacy.sampling import poisson_batches
from dpnorm.privacy.statement import PrivacyStatement

__all__ = [
    "ACCOUNTANTS",
    "PrivacyConfig",
    "PrivacyStatement",
    "epsilon_spent",
    "noise_for",
    "poisson_batches",
]
