"""Where a run lives: a local folder, or any place that fsspec knows (s3://, memory://)."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Protocol

from dpnorm.errors import InputError, StorageError
from dpnorm.files import is_remnant, make_folder, replacing

_OURS = ("cells", "failures")
_SETTLED = 2.0  # seconds after which a temporary file without a writer was left by a killed one


class Storage(Protocol):
    """Files by name, such as "cells/5f1c.npz"; each is written whole or not at all.

    Attributes:
        url: opens the same place in another process.
        shared: whether another process sees it, too.
    """

    url: str
    shared: bool

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; a reader sees the old one or the new one.

        Raises:
            StorageError: it cannot be written.
        """

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""

    def names(self, folder: str) -> list[str]:
        """The files in a folder, sorted, as names for `read`."""

    def sweep(self) -> None:
        """Removes temporary files whose writers were killed, in the folders of runs alone."""


def open_storage(place: str | Path) -> Storage:
    """The storage at a local path or at a URL of fsspec. Nothing is made yet.

    Raises:
        InputError: an unknown protocol, or one whose package is not installed.
    """
    text = str(place)
    protocol, mark, rest = text.partition("://")
    if not mark:
        return LocalStorage(Path(place))
    return LocalStorage(Path(rest)) if protocol == "file" else _RemoteStorage(text)


class LocalStorage:
    """A folder of this machine, or one that is mounted on several."""

    shared = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder.absolute())

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                f"cannot read {str(self.folder / name)!r}: {error.strerror or error}"
            ) from error

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        make_folder(path.parent, "--runs")
        with contextlib.ExitStack() as until_renamed, replacing(path) as temporary:
            # No buffer: what a full disk left in one would be written again, and fail, on closing.
            file = until_renamed.enter_context(temporary.open("wb", buffering=0))
            _hold(file.fileno())
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / name).unlink()

    def names(self, folder: str) -> list[str]:
        where = self.folder / folder
        if not where.is_dir():
            return []
        return sorted(f"{folder}/{f.name}" for f in where.iterdir() if not is_remnant(f))

    def sweep(self) -> None:
        if not self.folder.is_dir():
            return
        runs = [plan.parent for plan in self.folder.glob("*/run.json")]
        for folder in (*runs, *(self.folder / name for name in _OURS)):
            for path in folder.glob(".*"):
                if path.is_file() and is_remnant(path) and _abandoned(path):
                    path.unlink(missing_ok=True)


class _RemoteStorage:
    """A place that fsspec knows. Object stores replace a file in one go."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self._system, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"{url!r} cannot be opened: {error}") from None
        self._root = root.rstrip("/")
        self.shared = "memory" not in self._system.protocol

    def read(self, name: str) -> bytes | None:
        try:
            content: Any = self._system.cat_file(f"{self._root}/{name}")
            return bytes(content)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self.url}/{name}: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        try:
            self._system.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(f"{self._root}/{name}", content)
        except OSError as error:
            raise StorageError(f"cannot write {self.url}/{name}: {error}") from error

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")

    def names(self, folder: str) -> list[str]:
        self._system.invalidate_cache()
        try:
            found = self._system.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{str(path).rpartition('/')[2]}" for path in found)

    def sweep(self) -> None:
        """There are no temporary files."""


def _hold(handle: int) -> None:
    """Marks the open file as one that somebody writes; closing it or a kill takes the mark away."""
    with contextlib.suppress(ImportError, OSError):  # without marks age must tell (`_abandoned`)
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


def _abandoned(path: Path) -> bool:
    try:
        if time.time() - path.stat().st_mtime < _SETTLED:
            return False
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return time.time() - path.stat().st_mtime > 3600
    finally:
        os.close(handle)
    return True
