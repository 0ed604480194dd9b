"""Which rows of a module's tensors belong to which record.

A record may have several rows along dimension 0: windows of an image, time steps folded into the
batch. Then a row is not a record, and what is clipped must first be put together record by record.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dpnorm.errors import InputError

Order = Literal["record-major", "record-minor"]


@dataclass(frozen=True)
class Rows:
    """How the rows of a module's arguments and output are ordered.

    Attributes:
        order: "record-major" where the rows of a record stand together (row i belongs to record
            i // (rows / records)), "record-minor" where they are strided (row i belongs to record
            i % records). With one row a record both are the same.
        folded: whether a record may have more than one row.
        shared: for each tensor argument, whether it serves all records alike and has no rows.
    """

    order: Order = "record-major"
    folded: bool = False
    shared: tuple[bool, ...] = ()

    def is_shared(self, argument: int) -> bool:
        """Whether the argument at this place serves all records alike."""
        return argument < len(self.shared) and self.shared[argument]

    def grouped(self, tensor: Tensor, records: int) -> Tensor:
        """The tensor (rows, ...) as (records, rows / records, ...).

        Raises:
            InputError: the rows are no multiple of the records.

        >>> import torch
        >>> Rows("record-minor").grouped(torch.arange(6), 3).tolist()
        [[0, 3], [1, 4], [2, 5]]
        """
        rows = tensor.shape[0]
        if not records or rows % records:
            raise InputError(
                f"a module was given {rows} rows for {records} records: each record must have the "
                "same number of rows"
            )
        if rows == records:
            return tensor.unsqueeze(1)
        if self.order == "record-minor":
            return tensor.reshape(rows // records, records, *tensor.shape[1:]).transpose(0, 1)
        return tensor.reshape(records, rows // records, *tensor.shape[1:])
