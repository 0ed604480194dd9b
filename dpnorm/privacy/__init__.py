"""The account of a private training: noise, epsilon, sampling and the statement about them."""

from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_spent, noise_for
from dpnorm.privacy.admission import require_admitted
from dpnorm.privacy.config import PrivacyConfig
from dpnorm.privacy.consistency import require_consistent
from dpnorm.privacy.engine import PrivacyEngine
from dpnorm.privacy.grad_sample import hooks_for
from dpnorm.privacy.sampling import poisson_batches
from dpnorm.privacy.statement import PrivacyStatement

__all__ = [
    "ACCOUNTANTS",
    "PrivacyConfig",
    "PrivacyEngine",
    "PrivacyStatement",
    "epsilon_spent",
    "hooks_for",
    "noise_for",
    "poisson_batches",
    "require_admitted",
    "require_consistent",
]
