"""Judging whether each record's contribution to a training step is its own."""

from dpnorm.detection.check import check
from dpnorm.detection.report import Finding, LayerVerdict, Report, Verdict
from dpnorm.detection.rules import Rule, rule, rules

__all__ = ["check", "rule", "rules", "Finding", "LayerVerdict", "Report", "Rule", "Verdict"]
