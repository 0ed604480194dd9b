"""What an attacker learns from a model: pools of models, attacks on them, memorization.

One pool, every measure: train M models on random halves once; each attack is a pure function of
which model saw which record, the logits and the labels.
"""

from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.members import Member, train_member, train_pool
from dpnorm.leakage.membership import draw_membership
from dpnorm.leakage.memorization import Memorization, memorization
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.ranking import Roc
from dpnorm.leakage.registry import attack, attacks
from dpnorm.leakage.scores import MembershipScores

__all__ = [
    "draw_membership",
    "train_member",
    "train_pool",
    "Member",
    "Pool",
    "attack",
    "attacks",
    "MembershipScores",
    "Roc",
    "Estimate",
    "memorization",
    "Memorization",
]
