"""A pool of models trained on random halves: all that the attacks need to know about them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from dpnorm.arrays import load_arrays, save_arrays
from dpnorm.errors import InputError

if TYPE_CHECKING:
    from dpnorm.leakage.members import Member

_KINDS = {
    "keep": "b",
    "logits": "f",
    "labels": "iu",
    "outlier": "b",
    "accuracy": "f",
    "test_logits": "f",
    "test_labels": "iu",
}
_DTYPES = {"b": np.bool_, "iu": np.int64}
_OPTIONAL = ("accuracy", "test_logits", "test_labels")


@dataclass(frozen=True, eq=False)
class Pool:
    """M models, N records, A augmented views of each record, K classes.

    Attributes:
        keep: bool[M, N]; keep[m, n] says that model m was trained on record n.
        logits: float32[M, N, A, K], of every record under every model, in eval mode.
        labels: int64[N], the labels that the models were trained on, in 0..K-1.
        outlier: bool[N], the records that were planted as outliers.
        accuracy: float64[M], each model's accuracy on the test set, between 0 and 1; NaN where it
            was not measured, and everywhere if it is not given.
        test_logits: float32[M, T, K] of T test records, which no model saw, or None.
        test_labels: int64[T], or None.

    Raises:
        InputError: the shapes disagree, a dtype is of another kind, a number is not finite or out
            of range, or there is no model, no record or a single class.
    """

    keep: NDArray[np.bool_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    outlier: NDArray[np.bool_]
    accuracy: NDArray[np.float64] | None = None
    test_logits: NDArray[np.float32] | None = None
    test_labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.accuracy is None and np.ndim(self.keep) == 2:
            object.__setattr__(self, "accuracy", np.full(len(self.keep), np.nan))
        for name, kinds in _KINDS.items():
            given = getattr(self, name)
            if given is None and name in _OPTIONAL:
                continue
            array = np.asarray(given)
            floats = np.float64 if name == "accuracy" else np.float32
            wanted = np.dtype(_DTYPES.get(kinds, floats))
            if array.dtype.kind not in kinds:
                raise InputError(f"pool: {name} has dtype {array.dtype}; {wanted} is needed")
            # A copy (of all but the large arrays): labels often are a view of a tensor, whose
            # storage torch moves when the tensor is sent to another process
            object.__setattr__(self, name, array.astype(wanted, copy="logits" not in name))
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
        if (self.test_logits is None) != (self.test_labels is None):
            raise InputError("pool: test_logits and test_labels go together; one of them is given")
        if self.test_logits is not None and self.test_labels is not None:
            wanted = (models, *self.test_labels.shape, shape[3])
            if self.test_labels.ndim != 1 or self.test_logits.shape != wanted:
                raise InputError(
                    f"pool: test_logits have shape {self.test_logits.shape}, test_labels "
                    f"{self.test_labels.shape}; [{models}, T, {shape[3]}] and [T] are needed"
                )

    def _check_values(self) -> None:
        classes = self.logits.shape[3]
        self._check_logits("logits", self.logits)
        self._check_labels("labels", self.labels, classes)
        if self.test_logits is not None and self.test_labels is not None:
            self._check_logits("test_logits", self.test_logits)
            self._check_labels("test_labels", self.test_labels, classes)
        assert self.accuracy is not None
        known = self.accuracy[~np.isnan(self.accuracy)]
        if not ((known >= 0) & (known <= 1)).all():
            raise InputError(f"pool: accuracy is {self.accuracy}; shares from 0 to 1 are needed")

    def _check_logits(self, name: str, array: NDArray[np.float32]) -> None:
        finite = [bool(np.isfinite(logits).all()) for logits in array]
        if not all(finite):
            broken = [m for m, fine in enumerate(finite) if not fine]
            raise InputError(
                f"pool: the {name} of model {broken[0]} ({len(broken)} of {len(finite)} models) "
                "are NaN or infinite; finite logits are needed: train that model again"
            )

    def _check_labels(self, name: str, labels: NDArray[np.int64], classes: int) -> None:
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise InputError(
                f"pool: the {name} run from {labels.min()} to {labels.max()}; the logits have "
                f"{classes} classes, so 0 to {classes - 1} is needed"
            )

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
        test_labels: NDArray[np.int64] | None = None,
    ) -> Self:
        """Stacks trained members of the same records, in the order given.

        Args:
            members: at least one.
            labels: int64[N].
            outlier: bool[N].
            test_labels: int64[T], where the members' logits of test records are wanted too.

        Raises:
            InputError: no member, or members that disagree in their shapes.
        """
        if not members:
            raise InputError("a pool needs at least 1 member; none was given")
        shapes = {(member.keep.shape, member.logits.shape) for member in members}
        if len(shapes) > 1:
            raise InputError(f"members of one pool need the same shapes; they have {shapes}")
        seen = [member.test_logits for member in members if member.test_logits is not None]
        test_logits = None
        if test_labels is not None:
            if len(seen) < len(members):
                raise InputError("test_labels were given, but not all members saw test records")
            test_logits = np.stack(seen)
        return cls(
            keep=np.stack([member.keep for member in members]),
            logits=np.stack([member.logits for member in members]),
            labels=np.asarray(labels),
            outlier=np.asarray(outlier),
            accuracy=np.array([member.accuracy for member in members], dtype=np.float64),
            test_logits=test_logits,
            test_labels=test_labels,
        )

    def save(self, path: str | Path) -> None:
        """Writes an npz without objects; a reader sees the old file or the new one."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        save_arrays(path, {name: array for name, array in arrays.items() if array is not None})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote. Never unpickles.

        Raises:
            InputError: the file is missing, truncated, not an npz, lacks an array, or holds
                objects or a pool that is not valid.
        """
        needed = [field.name for field in fields(cls) if field.name not in _OPTIONAL]
        arrays = load_arrays(path, needed, "a pool")
        known = {field.name for field in fields(cls)}
        return cls(**{name: array for name, array in arrays.items() if name in known})
