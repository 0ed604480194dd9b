"""Which code computed a cell."""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

import dpnorm

_BESIDE = (  # what looks at finished members, and what shows what was seen
    "cli/",
    "benchmark/",
    "explain/",
    "figures.py",
    "text.py",
    "leakage/audits/",
    "leakage/membership_attacks/",
    "leakage/plots/",
    "leakage/attack_all.py",
    "leakage/findings.py",
    "leakage/opened.py",
)
_CELLS = "benchmark/cells.py"


@functools.cache
def code_fingerprint(with_parts: tuple[str, ...] = ()) -> str:
    """SHA-256 over dpnorm's source files, but for those that no cell's numbers come from.

    A cell that other code computed is not taken for a finished one.

    Args:
        with_parts: folders or files that count as well, such as "leakage/".
    """
    root = Path(dpnorm.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if not name.startswith(_BESIDE) or name == _CELLS or name.startswith(with_parts):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def code_versions(with_parts: tuple[str, ...] = ()) -> dict[str, str]:
    """The fingerprint, and the versions of what else decides the numbers of a training."""
    return {
        "code": code_fingerprint(with_parts),
        **{name: _version(name) for name in ("torch", "opacus", "numpy")},
    }


@functools.cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)
