"""What was seen along a training, as a table."""

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pandas

_FORMATS = {
    "epoch": "{:.0f}",
    "step": "{:.0f}",
    "loss": "{:.4f}",
    "lr": "{:.4g}",
    "accuracy": "{:.4f}",
    "epsilon": "{:.3f}",
}
_COUNTS = ("epoch", "step")


class History(tuple[dict[str, float], ...]):
    """One row an epoch, each a dict of numbers; it prints as a table.

    Columns: epoch; step, how many were taken; loss, the mean over the records of the epoch as they
    were drawn; lr, of its last step; and where it was evaluated accuracy, on the test records, and
    epsilon, spent so far. What was not evaluated is missing in a row.

    >>> history = History([{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}])
    >>> print(history)
    epoch    loss
        1  0.5000
        2  0.2500
    >>> history.column("loss")
    [0.5, 0.25]
    >>> print(history.to_csv(), end="")
    epoch,loss
    1,0.5
    2,0.25
    """

    def __new__(cls, rows: Iterable[dict[str, float]] = ()) -> Self:
        return super().__new__(cls, rows)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        found = dict.fromkeys(key for row in self for key in row)
        known = [name for name in _FORMATS if name in found]
        return known + [name for name in found if name not in known]

    def column(self, name: str) -> list[float | None]:
        """One number a row; None where it is missing."""
        return [row.get(name) for row in self]

    def to_csv(self) -> str:
        """The table as CSV text."""
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=self.columns, lineterminator="\n")
        writer.writeheader()
        for row in self:
            writer.writerow({k: int(v) if k in _COUNTS else v for k, v in row.items()})
        return out.getvalue()

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame."""
        import pandas

        return pandas.DataFrame(list(self), columns=self.columns)

    def __str__(self) -> str:
        rows = [self.columns, *[[_text(row, name) for name in self.columns] for row in self]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join(lines)


def _text(row: dict[str, float], name: str) -> str:
    value: Any = row.get(name)
    return "" if value is None else _FORMATS.get(name, "{:g}").format(value)
