"""Records and data sets: labelled tensors in memory, in a private and a public part."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as torch_data

from dpnorm.errors import InputError


@dataclass(frozen=True, eq=False)
class Records(torch_data.Dataset[tuple[Tensor, Tensor]]):
    """Labelled records in memory, usable wherever PyTorch takes a map-style data set.

    Attributes:
        x: inputs, float32 [N, *shape].
        y: labels, int64 [N].
        outlier: bool [N], true for a record that `add_outliers` planted; all false by default.

    Raises:
        InputError: the tensors differ in length or have other types than these.

    >>> records = Records(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1]))
    >>> len(records), len(records.select(records.y == 1)), records.outlier.tolist()
    (3, 2, [False, False, False])
    """

    x: Tensor
    y: Tensor
    outlier: Tensor = None  # type: ignore[assignment]  # filled in below, so never None to a reader

    def __post_init__(self) -> None:
        if self.outlier is None:
            object.__setattr__(self, "outlier", torch.zeros(len(self.y), dtype=torch.bool))
        wanted = {"x": torch.float32, "y": torch.int64, "outlier": torch.bool}
        for name, dtype in wanted.items():
            if getattr(self, name).dtype != dtype:
                raise InputError(
                    f"the records' {name} must be {dtype}, but it is {getattr(self, name).dtype}"
                )
        if self.x.ndim < 2 or self.y.ndim != 1 or self.outlier.ndim != 1:
            raise InputError(
                "records need x of shape [N, ...], y of shape [N] and outlier of shape [N], but "
                f"they have {list(self.x.shape)}, {list(self.y.shape)}, {list(self.outlier.shape)}"
            )
        if not len(self.x) == len(self.y) == len(self.outlier):
            raise InputError(
                f"the records differ in length: x has {len(self.x)}, y {len(self.y)}, "
                f"outlier {len(self.outlier)}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def fingerprint(self) -> str:
        """Returns the SHA-256, in hex, of every array with its shape."""
        digest = hashlib.sha256()
        _add(digest, "records", self)
        return digest.hexdigest()

    def select(self, index_or_mask: Any) -> "Records":
        """Returns the records at these positions, or where a bool mask [N] is true.

        Takes a tensor, a numpy array, a list or a slice; the order is that of the positions.

        Raises:
            InputError: a mask of another length, a position outside, or neither of the two.
        """
        if isinstance(index_or_mask, slice):
            chosen = torch.arange(len(self))[index_or_mask]
        else:
            chosen = torch.as_tensor(index_or_mask)
            if chosen.numel() == 0 and chosen.dtype != torch.bool:
                chosen = chosen.long()
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex():
            raise InputError(
                "select needs a list of positions or a bool mask, but it was given "
                f"{chosen.dtype} of shape {list(chosen.shape)}"
            )
        if chosen.dtype == torch.bool:
            if len(chosen) != len(self):
                raise InputError(f"the mask has {len(chosen)} entries for {len(self)} records")
        else:
            chosen = chosen.long()
            if len(chosen) and not -len(self) <= int(chosen.min()) <= int(chosen.max()) < len(self):
                raise InputError(
                    f"a position is outside the {len(self)} records: they run from "
                    f"{int(chosen.min())} to {int(chosen.max())}"
                )
        return Records(self.x[chosen], self.y[chosen], self.outlier[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three disjoint parts.

    A privacy statement is about `train`, the records as they stand there. `public` is for
    calibration and for frozen or public statistics: nothing protects it. `test` measures.

    Attributes:
        name: what it was loaded as.
        train: the private records.
        test: held-out records.
        public: records that no guarantee covers.
        num_classes: labels run from 0 to num_classes - 1.
        shape: of one record, without the batch dimension.
        scaling: in plain words, which public constants scaled the inputs.
        bounds: the least and the greatest value that an input can have, known without looking at
            the records; None where the owner of the data has not said.
        uncovered: what of this data set was computed from its private records without noise; every
            privacy statement of a training on it lists it as not covered.

    Raises:
        InputError: a part has records of another shape, or labels outside the classes; `uncovered`
            is no tuple of texts.
    """

    name: str
    train: Records
    test: Records
    public: Records
    num_classes: int
    shape: tuple[int, ...]
    scaling: str
    bounds: tuple[float, float] | None = None
    uncovered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.uncovered, tuple) or not all(
            isinstance(item, str) and item for item in self.uncovered
        ):
            raise InputError(
                f"uncovered of {self.name!r} is {self.uncovered!r}: it is to be a tuple of texts, "
                "such as ('the mean of the inputs',)"
            )
        for name, part in self.parts().items():
            if tuple(part.x.shape[1:]) != tuple(self.shape):
                raise InputError(
                    f"the {name} records of {self.name!r} have the shape "
                    f"{tuple(part.x.shape[1:])}, but the data set says {tuple(self.shape)}"
                )
            if len(part) and not 0 <= int(part.y.min()) <= int(part.y.max()) < self.num_classes:
                raise InputError(
                    f"the {name} labels of {self.name!r} run from {int(part.y.min())} to "
                    f"{int(part.y.max())}, but there are {self.num_classes} classes"
                )

    def parts(self) -> dict[str, Records]:
        """Returns the three parts by name."""
        return {"train": self.train, "test": self.test, "public": self.public}

    def fingerprint(self) -> str:
        """Returns the SHA-256, in hex, of the name, the classes and every array with its shape.

        Two data sets with one fingerprint hold the same records in the same order. What is said of
        them (`scaling`, `bounds`, `uncovered`) is not in it.
        """
        digest = hashlib.sha256(repr((self.name, self.num_classes, tuple(self.shape))).encode())
        for name, part in self.parts().items():
            _add(digest, name, part)
        return digest.hexdigest()


def _add(digest: Any, name: str, records: Records) -> None:
    """Adds every array of the records, with its shape, to a digest."""
    for field in ("x", "y", "outlier"):
        array = getattr(records, field).detach().cpu().contiguous().numpy()
        array = array.astype(array.dtype.newbyteorder("<"))
        digest.update(repr((name, field, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
