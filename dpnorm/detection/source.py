"""Where a module's code stands."""

import inspect
from pathlib import Path

from torch import nn


def source_location(module: nn.Module) -> str:
    """File and line of a module's forward, as "file.py:41", or "" where there is no source."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return ""
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"
