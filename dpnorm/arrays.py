"""Named arrays in a file: npz without objects."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.files import replacing


def save_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes an npz without objects; a reader sees the old file or the new one.

    Args:
        path: of the file, whose folder exists.
        arrays: by name, none of them of objects.

    Raises:
        StorageError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle


def load_arrays(path: str | Path, needed: Sequence[str], what: str) -> dict[str, NDArray[Any]]:
    """Reads all arrays of an npz, whose checksums are verified. Never unpickles.

    Args:
        path: of the file.
        needed: arrays that must be there.
        what: the file should be, such as "a pool".

    Raises:
        InputError: the file is missing, truncated, not an npz, lacks an array or holds objects.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, str(path), needed, what)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {what} saved as npz is needed") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable npz without objects: {error}") from error


def array_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """What `save_arrays` writes."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    return file.getvalue()


def arrays_of(
    content: bytes, name: str, needed: Sequence[str], what: str
) -> dict[str, NDArray[Any]]:
    """What `load_arrays` reads, from the content of a file with this name.

    Raises:
        InputError: as `load_arrays`.
    """
    return _read(io.BytesIO(content), name, needed, what)


def _read(file: IO[bytes], name: str, needed: Sequence[str], what: str) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{name}: one array; an npz with {', '.join(needed)} is needed")
        missing = [array for array in needed if array not in archive]
        if missing:
            raise InputError(
                f"{name}: not {what}: {', '.join(missing)} missing; it holds "
                f"{', '.join(archive.files) or 'nothing'}"
            )
        return {array: archive[array] for array in archive.files}
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{name}: not a readable npz without objects (truncated?): {error}"
        ) from error
