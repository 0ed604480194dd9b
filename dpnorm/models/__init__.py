"""Small BatchNorm networks, and loaders of torchvision's, timm's and the user's own models.

Every module of this package is imported here, so that a file with a registered model is found
without being listed anywhere. torchvision and timm are imported when one of theirs is built.
"""

from dpnorm.models.registry import MODELS, build, names
from dpnorm.plugins import import_modules

__all__ = ["build", "names", "MODELS"]

import_modules(__name__, __path__)
