"""How many steps were begun, kept where a kill does not lose it.

A checkpoint holds the training as it was at some step. A process that is killed later has taken
more steps, and what they released may have been seen. Drawn anew they are other releases, so that
the account must hold both: it is read off this file, to which each step adds a byte before it is
taken.
"""

import os
from pathlib import Path
from typing import Self

from dpnorm.errors import InputError, StorageError
from dpnorm.files import write_text

_BEGUN = b"."


class Journal:
    """The journal of one training; the file is written by `restart`.

    Args:
        path: of the file.
        token: of the training; its checkpoint has the same.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token = path, token
        self._file: int | None = None

    @classmethod
    def read(cls, path: Path, token: str) -> tuple[Self, int]:
        """The journal of a training that goes on, and how many steps were begun in all.

        Raises:
            InputError: there is none, or it is of another training.
        """
        need = "without it nobody knows what was released after the checkpoint; begin a new run"
        try:
            head, end, begun = path.read_bytes().partition(b"\n")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot read {str(path)!r} ({reason}): {need}") from None
        found, _, base = head.decode("ascii", "replace").partition(" ")
        if not (end and base.isdecimal()) or begun.strip(_BEGUN):
            raise InputError(f"{str(path)!r} is damaged: {need}")
        if found != token:
            raise InputError(f"{str(path)!r} is of another training than the checkpoint: {need}")
        return cls(path, token), int(base) + len(begun)

    def restart(self, step: int) -> None:
        """A checkpoint was written at this step: what was begun before it is in there."""
        self.close()
        write_text(self._path, f"{self._token} {step}\n")
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def begin(self) -> None:
        """A step is about to be taken.

        Raises:
            StorageError: that cannot be written; the step must not be taken then.
        """
        assert self._file is not None
        try:
            os.write(self._file, _BEGUN)
            os.fsync(self._file)
        except OSError as error:
            raise StorageError(
                f"cannot write {str(self._path)!r} ({error.strerror or error}), so that the next "
                "step would be in no account: make room, and run the same again; it goes on at "
                "the last checkpoint"
            ) from error

    def close(self) -> None:
        """Lets the file go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
