"""The errors that dpnorm raises for a user's mistake, and the nearest-match hint they carry.

Each message says what was given, what is needed and, where it is known, what to do. The command
line prints them as one line and exits with 2.
"""

import difflib
from collections.abc import Iterable


class DpnormError(Exception):
    """Base of every error that dpnorm raises on purpose."""


class InputError(DpnormError, ValueError):
    """An argument, a file or a configuration is not what is needed."""


class ConversionError(DpnormError):
    """A model cannot take the variant that was asked for."""


class RefusedError(DpnormError):
    """A private training was asked for that would not have the guarantee it claims."""


class StorageError(DpnormError, OSError):
    """A file cannot be written: the disk is full, or the folder may not be written to."""


class StoppedError(DpnormError):
    """A training was asked to stop, and has left a checkpoint."""


class MissingExtraError(DpnormError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed: "
            f"pip install 'dpnorm[{extra}]'"
        )


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> InputError:
    """Builds the error for a name outside a fixed list, with the nearest match.

    >>> print(unknown_name("variant", "grup", ["group", "layer"]))
    unknown variant 'grup': allowed are group, layer; did you mean 'group'?
    """
    names = list(allowed)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {given!r}: allowed are {', '.join(names)}{hint}")
