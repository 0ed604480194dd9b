"""A user's own arrays: `npz:PATH`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from dpnorm.data.dataset import Dataset
from dpnorm.data.registry import scheme
from dpnorm.data.split import split_dataset
from dpnorm.errors import InputError

MIN_RECORDS = 50  # so that the public part, 4%, has the two records that a batch needs
_UNREADABLE = (
    ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError
)  # fmt: skip


@scheme("npz", "PATH")
def load_npz(path: str) -> Dataset:
    """Loads the arrays `x` and `y`, and optionally the number `num_classes`, of an npz file.

    `x` is [N, D], [N, H, W] (a channel is added) or [N, C, H, W]; `y` holds the N class numbers
    from 0. uint8 inputs are brought from [0, 255] to [-1, 1]; other numbers stay as they are,
    and it is up to their owner that no statistic of the private records scaled them. The fixed
    stratified split is 80% train, 16% test, 4% public.

    **What no guarantee covers.** The public part is cut from this same file, 4 records in 100,
    and public records may be used without noise. A file whose every record is private must
    not be used with a variant that asks for public data (`frozen` from scratch, `public-batch`).

    Raises:
        InputError: no such file, not an npz file, arrays missing or not as above; nothing is
            unpickled, so object arrays are refused.
    """
    source = f"npz:{path}"
    arrays = _read(Path(path).expanduser() if path else None, source)
    missing = [key for key in ("x", "y") if key not in arrays]
    if missing:
        raise InputError(
            f"{source}: there is no array {' and no array '.join(map(repr, missing))}; needed are "
            f"'x' (inputs) and 'y' (labels), and the file holds {_listed(arrays)}"
        )
    x, scaling, bounds = _inputs(arrays["x"], source)
    y, num_classes = _labels(arrays["y"], arrays.get("num_classes"), source)
    if len(x) != len(y):
        raise InputError(f"{source}: x has {len(x)} records, but y has {len(y)} labels")
    needed = max(MIN_RECORDS, 2 * len(np.unique(y)))
    if len(x) < needed:
        raise InputError(
            f"{source}: {len(x)} records are too few to split into train, test and public; "
            f"at least {needed} are needed"
        )
    test, public = round(0.16 * len(x)), round(0.04 * len(x))
    return split_dataset(
        source,
        x,
        y,
        num_classes=num_classes,
        test=test,
        public=public,
        scaling=scaling,
        bounds=bounds,
    )


def _read(path: Path | None, source: str) -> dict[str, np.ndarray]:
    if path is None:
        raise InputError("npz: needs the path of a file, as in npz:records.npz")
    if path.is_dir():
        raise InputError(f"{source}: this is a folder; give the path of an npz file")
    if not path.exists():
        raise InputError(f"{source}: there is no such file")
    arrays: dict[str, np.ndarray] = {}
    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # a file that may not be read says so itself
            raise InputError(
                f"{source}: this is not an npz file, or only a part of one; "
                "write it with numpy.savez(path, x=..., y=...)"
            )
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                if key in ("x", "y", "num_classes"):
                    arrays[key] = _array(file, key, source)
                else:
                    arrays[key] = np.empty(0)  # not ours to read
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{source}: the arrays do not fit into memory: {error}") from error
    except _UNREADABLE as error:
        raise InputError(f"{source}: the file cannot be read: {error}") from error
    return arrays


def _array(file: np.lib.npyio.NpzFile, key: str, source: str) -> np.ndarray:
    try:
        array = file[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{source}: {key} is an object array, which only pickle can read, and pickle can run "
            "any code; save it as a plain array of numbers"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{source}: {key} is not an array in the npy format")
    return array


def _inputs(x: np.ndarray, source: str) -> tuple[np.ndarray, str, tuple[float, float] | None]:
    """Returns x as float32 [N, D] or [N, C, H, W], how it was scaled, and its public bounds."""
    if x.dtype.kind not in "uif":
        raise InputError(f"{source}: x must hold numbers (integers or floats), but it is {x.dtype}")
    if x.ndim not in (2, 3, 4):
        raise InputError(
            f"{source}: x must be [N, D], [N, H, W] or [N, C, H, W], but it has {x.ndim} "
            f"dimensions: {list(x.shape)}"
        )
    if 0 in x.shape[1:]:
        raise InputError(f"{source}: the records of x are empty: its shape is {list(x.shape)}")
    scaling = f"{x.dtype} inputs as they were in the file; scaling them is their owner's business"
    bounds = None
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    if x.dtype == np.uint8:
        scaled = scaled / np.float32(127.5) - np.float32(1)
        scaling, bounds = "from [0, 255], the range of a byte, to [-1, 1]", (-1.0, 1.0)
    bad = ~np.isfinite(scaled)
    if bad.any():
        records = bad.reshape(len(x), -1).any(axis=1)
        raise InputError(
            f"{source}: x has NaN, infinite or float32-exceeding values in {records.sum()} of "
            f"{len(x)} records, the first at position {records.argmax()}; remove or repair them"
        )
    return (scaled[:, None] if x.ndim == 3 else scaled), scaling, bounds


def _labels(y: np.ndarray, given: np.ndarray | None, source: str) -> tuple[np.ndarray, int]:
    """Returns y as int64 [N] and the number of classes."""
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise InputError(
            f"{source}: y must be a list of integers, one class number a record, but it is "
            f"{y.dtype} of shape {list(y.shape)}"
        )
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    if low < 0:
        raise InputError(f"{source}: labels must start at 0, but y has {low}")
    if given is None:
        seen = np.unique(y)
        gaps = np.flatnonzero(seen != np.arange(len(seen)))
        if len(gaps):
            raise InputError(
                f"{source}: labels run to {high}, but no record has the label {int(gaps[0])}; "
                "number the classes without gaps, or add num_classes to the file"
            )
        num_classes = high + 1
    else:
        if given.size != 1 or given.dtype.kind not in "ui":
            raise InputError(
                f"{source}: num_classes must be one integer, but it is {given.dtype} of shape "
                f"{list(given.shape)}"
            )
        num_classes = int(given.reshape(()))
        if high >= num_classes:
            raise InputError(
                f"{source}: a label is {high}, but num_classes is {num_classes}, so labels may "
                f"run from 0 to {num_classes - 1}"
            )
    if len(y) and low == high:
        raise InputError(
            f"{source}: every label is {low}; at least 2 classes are needed to train a classifier"
        )
    return y.astype(np.int64), num_classes


def _listed(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(map(repr, sorted(arrays))) or "nothing"
