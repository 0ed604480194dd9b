"""The recipes: what can stand in a BatchNorm's place, one family a file.

A new recipe is one file here with a `@recipe(...)` function; nothing else is edited.
"""

import importlib
import pkgutil

from dpnorm.conversion.recipes.registry import Groups, Init, Variant, variants

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["Groups", "Init", "Variant", "variants"]
