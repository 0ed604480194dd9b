"""The recipes: what can stand in a BatchNorm's place, one family a file.

A new recipe is one file here with a `@recipe(...)` function; nothing else is edited.
"""

from dpnorm.conversion.recipes.registry import (
    Exchange,
    Groups,
    Init,
    Preparation,
    Variant,
    variants,
)
from dpnorm.plugins import import_modules

import_modules(__name__, __path__)

__all__ = ["Exchange", "Groups", "Init", "Preparation", "Variant", "variants"]
