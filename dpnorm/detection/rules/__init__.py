"""The rules, one family a file: what each code means, why it matters, and what to do."""

import importlib
import pkgutil

from dpnorm.detection.rules.registry import Rule, rule, rules

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["Rule", "rule", "rules"]
