"""Which code computed a cell."""

import functools
import hashlib
from pathlib import Path

import dpnorm


@functools.cache
def code_fingerprint() -> str:
    """SHA-256 over dpnorm's source files, but for the command line and the rendering of reports.

    A cell that other code computed is not taken for a finished one.
    """
    root = Path(dpnorm.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if not name.startswith(("cli/", "benchmark/")) or name == "benchmark/cells.py":
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
