"""A pool of models trained on random halves: all that the attacks need to know about them."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.files import replacing

if TYPE_CHECKING:
    from dpnorm.leakage.members import Member

_KINDS = {"keep": "b", "logits": "f", "labels": "iu", "outlier": "b", "accuracy": "f"}
_DTYPES = {
    "keep": np.bool_,
    "logits": np.float32,
    "labels": np.int64,
    "outlier": np.bool_,
    "accuracy": np.float64,
}


@dataclass(frozen=True, eq=False)
class Pool:
    """M models, N records, A augmented views of each record, K classes.

    Attributes:
        keep: bool[M, N]; keep[m, n] says that model m was trained on record n.
        logits: float32[M, N, A, K], of every record under every model, in eval mode.
        labels: int64[N], the labels that the models were trained on, in 0..K-1.
        outlier: bool[N], the records that were planted as outliers.
        accuracy: float64[M], each model's accuracy on the test set, between 0 and 1.

    Raises:
        InputError: the shapes disagree, a dtype is of another kind, a number is not finite or out
            of range, or there is no model, no record or a single class.
    """

    keep: NDArray[np.bool_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    outlier: NDArray[np.bool_]
    accuracy: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            array = np.asarray(getattr(self, name))
            wanted = np.dtype(_DTYPES[name])
            if array.dtype.kind not in kinds:
                raise InputError(f"pool: {name} has dtype {array.dtype}; {wanted} is needed")
            # A copy (of all but the large array): labels often are a view of a tensor, whose
            # storage torch moves when the tensor is sent to another process
            object.__setattr__(self, name, array.astype(wanted, copy=name != "logits"))
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        if self.keep.ndim != 2 or 0 in self.keep.shape:
            raise InputError(
                f"pool: keep has shape {self.keep.shape}; [models, records] is needed, with at "
                "least 1 of each"
            )
        models, records = self.keep.shape
        shape = self.logits.shape
        if len(shape) != 4 or shape[:2] != (models, records) or shape[2] < 1 or shape[3] < 2:
            raise InputError(
                f"pool: logits have shape {shape}; keep {self.keep.shape} needs "
                f"[{models}, {records}, views, classes] with at least 1 view and 2 classes"
            )
        for name, size in (("labels", records), ("outlier", records), ("accuracy", models)):
            came = getattr(self, name).shape
            if came != (size,):
                raise InputError(
                    f"pool: {name} has shape {came}; keep {self.keep.shape} needs ({size},)"
                )

    def _check_values(self) -> None:
        finite = [bool(np.isfinite(logits).all()) for logits in self.logits]
        if not all(finite):
            broken = [m for m, fine in enumerate(finite) if not fine]
            raise InputError(
                f"pool: the logits of model {broken[0]} ({len(broken)} of {len(finite)} models) "
                "are NaN or infinite; finite logits are needed: train that model again"
            )
        low, high, classes = int(self.labels.min()), int(self.labels.max()), self.logits.shape[3]
        if low < 0 or high >= classes:
            raise InputError(
                f"pool: the labels run from {low} to {high}; the logits have {classes} classes, "
                f"so 0 to {classes - 1} is needed"
            )
        if not ((self.accuracy >= 0) & (self.accuracy <= 1)).all():
            raise InputError(f"pool: accuracy is {self.accuracy}; shares from 0 to 1 are needed")

    @property
    def models(self) -> int:
        """The number of models M."""
        return int(self.keep.shape[0])

    @property
    def records(self) -> int:
        """The number of records N."""
        return int(self.keep.shape[1])

    @classmethod
    def from_members(
        cls,
        members: Sequence["Member"],
        labels: NDArray[np.int64],
        outlier: NDArray[np.bool_],
    ) -> Self:
        """Stacks trained members of the same records, in the order given.

        Raises:
            InputError: no member, or members that disagree in their shapes.
        """
        if not members:
            raise InputError("a pool needs at least 1 member; none was given")
        shapes = {(member.keep.shape, member.logits.shape) for member in members}
        if len(shapes) > 1:
            raise InputError(f"members of one pool need the same shapes; they have {shapes}")
        return cls(
            keep=np.stack([member.keep for member in members]),
            logits=np.stack([member.logits for member in members]),
            labels=np.asarray(labels),
            outlier=np.asarray(outlier),
            accuracy=np.array([member.accuracy for member in members], dtype=np.float64),
        )

    def save(self, path: str | Path) -> None:
        """Writes an npz without objects; a reader sees the old file or the new one."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                keep=self.keep,
                logits=self.logits,
                labels=self.labels,
                outlier=self.outlier,
                accuracy=self.accuracy,
            )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote. Never unpickles.

        Raises:
            InputError: the file is missing, truncated, not an npz, lacks an array, or holds
                objects or a pool that is not valid.
        """
        names = [field.name for field in fields(cls)]
        try:
            with open(path, "rb") as file:
                archive = np.load(file, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise InputError(f"{path}: one array; an npz with {', '.join(names)} is needed")
                missing = [name for name in names if name not in archive]
                if missing:
                    raise InputError(
                        f"{path}: not a pool: {', '.join(missing)} missing; it holds "
                        f"{', '.join(archive.files) or 'nothing'}"
                    )
                arrays = {name: archive[name] for name in names}
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; a pool saved as npz is needed") from None
        except InputError:
            raise
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            raise InputError(
                f"{path}: not a readable npz without objects (truncated?): {error}"
            ) from error
        return cls(**arrays)
