"""What an attacker learns from a model: pools of models, attacks on them, audits, memorization.

One pool, every measure: train M models on random halves once; each attack is a pure function of
which model saw which record, the logits and the labels.
"""

from dpnorm.leakage.audits import (
    GuessPlan,
    PoolAudit,
    TrainingAudit,
    Trials,
    audit,
    audit_pool,
    audit_pool_record,
    audit_training,
    multi_run_epsilon,
    multi_run_gaussian_epsilon,
    one_run_epsilon,
    one_run_gaussian_epsilon,
    one_run_p_value,
)
from dpnorm.leakage.bound import Bound
from dpnorm.leakage.comparison import auc_difference, memorized_difference
from dpnorm.leakage.course import Course, MemberCourse
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.folder import PoolFolder
from dpnorm.leakage.gradient_norms import gradient_norms
from dpnorm.leakage.influence import Influence, InfluencePairs, influence
from dpnorm.leakage.members import Member, train_member
from dpnorm.leakage.membership import draw_membership
from dpnorm.leakage.memorization import Memorization, memorization
from dpnorm.leakage.norm_summary import NormSummary, summarize_norms
from dpnorm.leakage.observe import observed_logits
from dpnorm.leakage.opened import open_pools
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.pool_training import train_pool
from dpnorm.leakage.ranking import Roc
from dpnorm.leakage.registry import attack, attacks
from dpnorm.leakage.scalar_influence import ScalarBatch
from dpnorm.leakage.scores import MembershipScores
from dpnorm.leakage.step_influence import StepInfluence, step_influence
from dpnorm.leakage.summary import GroupSummary, LeakageSummary, Unresolved

__all__ = [
    "draw_membership",
    "train_member",
    "train_pool",
    "Member",
    "Pool",
    "PoolFolder",
    "open_pools",
    "observed_logits",
    "attack",
    "attacks",
    "MembershipScores",
    "LeakageSummary",
    "GroupSummary",
    "Unresolved",
    "Roc",
    "Estimate",
    "memorization",
    "auc_difference",
    "memorized_difference",
    "Memorization",
    "Course",
    "MemberCourse",
    "gradient_norms",
    "summarize_norms",
    "NormSummary",
    "influence",
    "Influence",
    "InfluencePairs",
    "ScalarBatch",
    "step_influence",
    "StepInfluence",
    "audit",
    "audit_training",
    "TrainingAudit",
    "audit_pool",
    "audit_pool_record",
    "PoolAudit",
    "GuessPlan",
    "one_run_epsilon",
    "one_run_p_value",
    "one_run_gaussian_epsilon",
    "multi_run_epsilon",
    "multi_run_gaussian_epsilon",
    "Trials",
    "Bound",
]
