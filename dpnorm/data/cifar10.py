"""CIFAR-10 from its binary version: `cifar10:FOLDER`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpnorm.data.dataset import Dataset, Records
from dpnorm.data.registry import scheme
from dpnorm.data.split import stratified_split
from dpnorm.errors import InputError

CLASSES, SHAPE = 10, (3, 32, 32)
PUBLIC = 2000  # of the training images, at most a tenth of them
_RECORD = 1 + 3 * 32 * 32  # a label, and the planes of red, green and blue
_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@scheme("cifar10", "FOLDER")
def load_cifar10(folder: str) -> Dataset:
    """Loads data_batch_*.bin and test_batch.bin, the binary version of CIFAR-10.

    Nothing is downloaded, and nothing is unpickled, which the Python version would ask for. The
    test images are the data set's own. The public part is taken from the training images, balanced
    over the classes: 2,000 of them, or a tenth where there are fewer than 20,000.

    Raises:
        InputError: no such files, or files of another form.
    """
    place = Path(folder).expanduser()
    batches = sorted(place.glob("data_batch_*.bin"))
    if not batches or not (place / "test_batch.bin").is_file():
        raise InputError(
            f"cifar10:{folder}: data_batch_1.bin to data_batch_5.bin and test_batch.bin are "
            f"needed, which are not there; unpack the binary version of {_SOURCE} into it"
        )
    x, y = (torch.cat(parts) for parts in zip(*map(_read, batches), strict=True))
    test = Records(*_read(place / "test_batch.bin"))
    public = min(PUBLIC, len(y) // 10)
    parts = stratified_split(y.numpy(), test=0, public=public)
    return Dataset(
        name=f"cifar10:{folder}",
        train=Records(x[parts.train], y[parts.train]),
        test=test,
        public=Records(x[parts.public], y[parts.public]),
        num_classes=CLASSES,
        shape=SHAPE,
        scaling="from [0, 255], the range of the format, to [-1, 1]",
        bounds=(-1.0, 1.0),
    )


def _read(file: Path) -> tuple[Tensor, Tensor]:
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error
    rows = content.reshape(-1, _RECORD) if content.size % _RECORD == 0 else content[:0]
    if not len(rows) or rows[:, 0].max() >= CLASSES:
        raise InputError(
            f"{str(file)!r} is no batch of the binary version of CIFAR-10: records of {_RECORD} "
            f"bytes, a label below {CLASSES} first; it has {content.size} bytes"
        )
    x = torch.from_numpy(rows[:, 1:].astype(np.float32) / 127.5 - 1.0).reshape(-1, *SHAPE)
    return x, torch.from_numpy(rows[:, 0].astype(np.int64))
