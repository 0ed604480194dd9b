"""What an attacker learns from a model: pools of models, attacks on them, audits, memorization.

One pool, every measure: train M models on random halves once; each attack is a pure function of
which model saw which record, the logits and the labels.
"""

from dpnorm.leakage.audits import (
    GuessPlan,
    Trials,
    audit,
    multi_run_epsilon,
    multi_run_gaussian_epsilon,
    one_run_epsilon,
    one_run_gaussian_epsilon,
    one_run_p_value,
)
from dpnorm.leakage.bound import Bound
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.members import Member, train_member, train_pool
from dpnorm.leakage.membership import draw_membership
from dpnorm.leakage.memorization import Memorization, memorization
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.ranking import Roc
from dpnorm.leakage.registry import attack, attacks
from dpnorm.leakage.scores import MembershipScores
from dpnorm.leakage.summary import GroupSummary, LeakageSummary, Unresolved

__all__ = [
    "draw_membership",
    "train_member",
    "train_pool",
    "Member",
    "Pool",
    "attack",
    "attacks",
    "MembershipScores",
    "LeakageSummary",
    "GroupSummary",
    "Unresolved",
    "Roc",
    "Estimate",
    "memorization",
    "Memorization",
    "audit",
    "GuessPlan",
    "one_run_epsilon",
    "one_run_p_value",
    "one_run_gaussian_epsilon",
    "multi_run_epsilon",
    "multi_run_gaussian_epsilon",
    "Trials",
    "Bound",
]
