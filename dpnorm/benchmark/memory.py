"""The most memory that a process held while something ran."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass
class Peak:
    """Resident bytes at the peak; None where the system does not tell it."""

    peak: int | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Yields what will hold this process's largest resident size inside (Linux).

    The kernel's high-water mark is set back at the start, so that what ran before in the same
    process does not count, apart from what it still holds.
    """
    found = Peak()
    try:
        (_SELF / "clear_refs").write_text("5")
        resettable = True
    except OSError:
        resettable = False
    yield found
    if resettable:
        for line in (_SELF / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found.peak = 1024 * int(line.split()[1])
