"""Where a module's code stands."""

import inspect
from pathlib import Path

from torch import nn


def source_location(module: nn.Module) -> str:
    """File and line of a module's forward, as "file.py:41", or "" where there is no source."""
    try:
        _, line = inspect.getsourcelines(type(module).forward)
        file = inspect.getsourcefile(type(module).forward)
    except (OSError, TypeError):
        return ""
    return f"{Path(file).name}:{line}" if file else ""
