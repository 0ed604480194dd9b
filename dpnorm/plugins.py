"""Registries that fill themselves: every module of a package is imported."""

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package, so that what it registers is known.

    Call it as `import_modules(__name__, __path__)` in the package's `__init__`. A new file in the
    package is then found without being listed anywhere.
    """
    for name in sorted(module.name for module in pkgutil.iter_modules(path)):
        importlib.import_module(f"{package}.{name}")
