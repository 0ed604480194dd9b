"""Writing files so that a reader sees the old content or the new one, never a part of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dpnorm.errors import StorageError


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


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
