"""Audits: lower bounds on epsilon, each with its ceiling and what was fixed in advance.

plan = GuessPlan.two_sided(canaries=1000)      # before any score is seen
bound = audit(plan, scores, members, delta=1e-5)
print(bound)
"""

from dpnorm.leakage.audits.audit import METHODS, audit
from dpnorm.leakage.audits.multi_run import multi_run_epsilon, multi_run_gaussian_epsilon
from dpnorm.leakage.audits.one_run import one_run_epsilon, one_run_p_value
from dpnorm.leakage.audits.one_run_gaussian import one_run_gaussian_epsilon
from dpnorm.leakage.audits.plan import GuessPlan
from dpnorm.leakage.audits.pools import PoolAudit, audit_pool, audit_pool_record
from dpnorm.leakage.audits.training import TrainingAudit, audit_training
from dpnorm.leakage.audits.trials import Trials

__all__ = [
    "audit",
    "GuessPlan",
    "one_run_epsilon",
    "one_run_p_value",
    "one_run_gaussian_epsilon",
    "multi_run_epsilon",
    "multi_run_gaussian_epsilon",
    "Trials",
    "METHODS",
    "audit_training",
    "TrainingAudit",
    "audit_pool",
    "audit_pool_record",
    "PoolAudit",
]
