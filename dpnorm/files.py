"""Writing files so that a reader sees the old content or the new one, never a part of it."""

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dpnorm.errors import InputError, StorageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed onto `path`.

    On an exception the temporary file is removed and `path` stays as it was. The parent folder
    must exist.

    Raises:
        StorageError: the file cannot be written, such as on a full disk.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part" + target.suffix
        )
    except OSError as error:
        raise _not_written(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _not_written(target, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _not_written(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {str(target)!r} ({error.strerror or error}): make room, or choose another "
        "folder; what stood there is as it was"
    )


def make_folder(path: str | Path, option: str = "") -> None:
    """Makes a folder and those above it, unless they are there.

    Args:
        path: of the folder.
        option: of the command line, with which another can be chosen.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        with_option = f" with {option}" if option else ""
        raise StorageError(
            f"cannot make the folder {str(path)!r} ({error.strerror or error}): choose another"
            f"{with_option}"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else who asks for this lock writes in the folder inside. A kill releases it.

    Raises:
        InputError: another process has it.
    """
    if sys.platform == "win32":  # which cannot lock a folder
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"another process trains in {str(folder)!r}: wait for it, or take another folder with "
            "-o"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # a file system without locks is no reason to refuse
            os.close(handle)
            raise
    try:
        yield
    finally:
        os.close(handle)


def is_remnant(path: Path) -> bool:
    """Whether this is a temporary file of `replacing`, whose writer was killed."""
    return path.name.startswith(".") and ".part" in path.name
