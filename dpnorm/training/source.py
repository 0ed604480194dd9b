"""Records by position, in memory or loaded one by one."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as MapStyle

from dpnorm.data import Records
from dpnorm.errors import InputError
from dpnorm.privacy import CollateOrEmpty, entropy_generator

AnyRecords = Records | MapStyle[Any]
"""`dpnorm.data.Records`, or a map-style data set of (input, label) pairs."""

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Source:
    """The records of a training, or of a test, as batches of tensors.

    Args:
        records: `dpnorm.data.Records`, or any map-style data set of (input, label) pairs.
        what: they are, for messages: "training" or "test".
        workers: processes that load the records of a map-style data set.
        classes: labels run from 0 to this less 1; None for what is checked elsewhere.
        generator: of what a map-style data set draws at random in its workers.
        secret: whether that is to be known to nobody.

    Raises:
        InputError: a data set without a length or positions, or that is empty, or whose first
            record is no pair of a tensor and a label.
    """

    def __init__(
        self,
        records: AnyRecords,
        *,
        what: str = "training",
        workers: int = 0,
        classes: int | None = None,
        generator: torch.Generator | None = None,
        secret: bool = False,
    ) -> None:
        if isinstance(records, IterableDataset) or not (
            hasattr(records, "__len__") and hasattr(records, "__getitem__")
        ):
            raise InputError(
                f"the {what} records are a {type(records).__name__}: needed are "
                "dpnorm.data.Records or a map-style data set, with __len__ and __getitem__"
            )
        if not len(records):
            raise InputError(f"there are no {what} records")
        self.records = records
        self._what = what
        self._workers = workers
        self._classes = classes
        self._generator = generator
        self._secret = secret
        self._example: tuple[Tensor, Tensor] | None = None
        if isinstance(records, Records):
            self._require_classes(records.y)
        else:
            self._example = self._pair(self._collate([records[0]]))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def in_memory(self) -> bool:
        """Whether the records are tensors in memory, which no random draw changes."""
        return isinstance(self.records, Records)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record."""
        x = self.records.x if isinstance(self.records, Records) else self._first[0]
        return tuple(x.shape[1:])

    @property
    def _first(self) -> tuple[Tensor, Tensor]:
        assert self._example is not None
        return self._example

    def stream(self, positions: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y) of the records at these positions, in this order.

        Args:
            positions: of each batch: int64 tensors, lists or ranges; a batch may be empty.

        Raises:
            InputError: the records are no pairs of tensors, or a label is outside the classes.
        """
        if isinstance(self.records, Records):
            for index in positions:
                chosen = torch.as_tensor(index, dtype=torch.int64)
                yield self.records.x[chosen], self.records.y[chosen]
            return
        lists = (torch.as_tensor(index, dtype=torch.int64).tolist() for index in positions)
        loader = DataLoader(
            self.records,
            batch_sampler=lists,
            num_workers=self._workers,
            collate_fn=CollateOrEmpty(self._collate, self._first),
            generator=self._generator or torch.Generator(),
            worker_init_fn=_fill_random_state if self._secret else None,
        )
        for batch in loader:
            yield self._pair(batch)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y) of all records, one after the other."""
        starts = range(0, len(self), batch_size)
        return self.stream(range(s, min(s + batch_size, len(self))) for s in starts)

    def _collate(self, records: list[Any]) -> Any:
        """A batch, or what is wrong with it: an error in a worker would bring its traceback."""
        try:
            return torch.utils.data.default_collate(records)
        except (RuntimeError, TypeError, KeyError) as error:
            return InputError(
                f"the {self._what} records cannot be put together to a batch: needed are pairs of "
                "a tensor, of one shape in all records, and a label "
                f"({str(error).partition(chr(10))[0][:200]})"
            )

    def _pair(self, batch: Any) -> tuple[Tensor, Tensor]:
        if isinstance(batch, InputError):
            raise batch
        if not (isinstance(batch, (list, tuple)) and len(batch) == 2):
            parts = f" of {len(batch)}" if isinstance(batch, (list, tuple)) else ""
            raise InputError(
                f"the {self._what} records are of type {type(batch).__name__}{parts}: needed are "
                "pairs (input, label)"
            )
        x, y = batch
        kinds = ", ".join(str(getattr(part, "dtype", type(part).__name__)) for part in batch)
        if not (isinstance(x, Tensor) and isinstance(y, Tensor) and y.dtype in _WHOLE):
            raise InputError(
                f"the {self._what} records are pairs of {kinds}: needed are tensors and "
                "whole-number labels"
            )
        if x.dtype != torch.float32:
            raise InputError(
                f"the {self._what} records are pairs of {kinds}: needed are inputs in "
                "torch.float32, as tensor.float() gives them"
            )
        if y.dim() != 1:
            raise InputError(
                f"a label of the {self._what} records has the shape {tuple(y.shape[1:])}: needed "
                "is one whole number"
            )
        self._require_classes(y)
        return x, y.long()

    def _require_classes(self, y: Tensor) -> None:
        if self._classes is None or not len(y):
            return
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= self._classes:
            raise InputError(
                f"a label of the {self._what} records is {low if low < 0 else high}, but there "
                f"are {self._classes} classes: labels run from 0 to {self._classes - 1}"
            )


def _fill_random_state(worker: int) -> None:
    """Of torch's 32 bits of seed a worker's draws would be found by trying all."""
    torch.set_rng_state(entropy_generator().get_state())
