"""dpnorm: find what breaks per-sample gradient bounds, convert it, train with DP, measure leakage.

The public names are imported when they are first used, so that `import dpnorm` does not wait for
torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "check": "dpnorm.detection",
    "sensitivity": "dpnorm.detection",
    "Sensitivity": "dpnorm.detection",
    "Report": "dpnorm.detection",
    "Finding": "dpnorm.detection",
    "Verdict": "dpnorm.detection",
    "convert": "dpnorm.conversion",
    "variants": "dpnorm.conversion",
    "Conversion": "dpnorm.conversion",
    "train": "dpnorm.training",
    "TrainConfig": "dpnorm.training",
    "TrainedModel": "dpnorm.training",
    "PrivacyConfig": "dpnorm.privacy",
    "PrivacyEngine": "dpnorm.privacy",
    "PrivacyStatement": "dpnorm.privacy",
    "privatize_moments": "dpnorm.privacy",
    "DpnormError": "dpnorm.errors",
}
_PACKAGES = ("data", "models", "training", "leakage", "norms", "benchmark", "explain")

__all__ = [*_PUBLIC, *_PACKAGES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"dpnorm.{name}")
    else:
        raise AttributeError(f"module 'dpnorm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
