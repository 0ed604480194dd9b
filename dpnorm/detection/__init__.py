"""Judging whether each record's contribution to a training step is its own."""

from dpnorm.detection.check import UNDECIDED, check
from dpnorm.detection.report import Finding, LayerVerdict, Report, Verdict
from dpnorm.detection.row_plan import unit_of
from dpnorm.detection.rules import Rule, rule, rules
from dpnorm.detection.sampled import sampled_modules
from dpnorm.detection.sensitivity import Sensitivity, sensitivity

__all__ = [
    "UNDECIDED",
    "check",
    "rule",
    "rules",
    "sampled_modules",
    "sensitivity",
    "unit_of",
    "Finding",
    "LayerVerdict",
    "Report",
    "Rule",
    "Sensitivity",
    "Verdict",
]
