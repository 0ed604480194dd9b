"""Judging whether each record's contribution to a training step is its own."""

from dpnorm.detection.check import UNDECIDED, check
from dpnorm.detection.report import Finding, LayerVerdict, Report, Verdict
from dpnorm.detection.rules import Rule, rule, rules
from dpnorm.detection.sensitivity import Sensitivity, sensitivity

__all__ = [
    "UNDECIDED",
    "check",
    "rule",
    "rules",
    "sensitivity",
    "Finding",
    "LayerVerdict",
    "Report",
    "Rule",
    "Sensitivity",
    "Verdict",
]
