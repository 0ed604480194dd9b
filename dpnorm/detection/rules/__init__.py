"""The rules, one family a file: what each code means, why it matters, and what to do."""

from dpnorm.detection.rules.registry import Rule, rule, rules
from dpnorm.plugins import import_modules

import_modules(__name__, __path__)

__all__ = ["Rule", "rule", "rules"]
