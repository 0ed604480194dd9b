"""Small BatchNorm networks, and loaders of torchvision's, timm's and the user's own models.

Every module of this package is imported here, so that a file with a registered model is found
without being listed anywhere. torchvision and timm are imported when one of theirs is built.
"""

import importlib
import pkgutil

from dpnorm.models.registry import MODELS, build, names

__all__ = ["build", "names", "MODELS"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
