"""The account of a private training: noise, epsilon, sampling and the statement about them."""

from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_spent, noise_for
from dpnorm.privacy.admission import require_admitted
from dpnorm.privacy.config import PrivacyConfig
from dpnorm.privacy.consistency import require_consistent
from dpnorm.privacy.draws import draws_at_random, draws_beside_torch
from dpnorm.privacy.engine import PrivacyEngine
from dpnorm.privacy.equivalents import group_epsilon, substitution_epsilon
from dpnorm.privacy.grad_sample import hooks_for
from dpnorm.privacy.joint import joint_noise, split_noise
from dpnorm.privacy.ledger import Event, Ledger, Release
from dpnorm.privacy.moments import PrivateMoments, privatize_moments
from dpnorm.privacy.optimizer import PrivateOptimizer
from dpnorm.privacy.randomness import entropy_generator, randomness, seeded_generator
from dpnorm.privacy.sampling import CollateOrEmpty, PoissonSampler, poisson_batches
from dpnorm.privacy.statement import PrivacyStatement, origin_of, statement_of
from dpnorm.privacy.statistics import StatisticsRelease

__all__ = [
    "ACCOUNTANTS",
    "CollateOrEmpty",
    "Event",
    "Ledger",
    "PoissonSampler",
    "PrivacyConfig",
    "PrivacyEngine",
    "PrivacyStatement",
    "PrivateMoments",
    "PrivateOptimizer",
    "Release",
    "StatisticsRelease",
    "draws_at_random",
    "draws_beside_torch",
    "entropy_generator",
    "epsilon_spent",
    "group_epsilon",
    "hooks_for",
    "joint_noise",
    "noise_for",
    "origin_of",
    "poisson_batches",
    "privatize_moments",
    "randomness",
    "require_admitted",
    "require_consistent",
    "seeded_generator",
    "split_noise",
    "statement_of",
    "substitution_epsilon",
]
