"""Computing one cell, wherever an engine runs it."""

import json
import time
import traceback
from dataclasses import dataclass

from dpnorm.benchmark.cells import Cell, is_finished, write_arrays
from dpnorm.benchmark.storage import Storage, open_storage
from dpnorm.errors import DpnormError, StorageError


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        seconds: it took; 0.0 where it was finished already.
        error: what went wrong, in one line; None where it is finished.
        trace: the traceback of an error that is not dpnorm's own.
    """

    seconds: float = 0.0
    error: str | None = None
    trace: str = ""


def compute_cell(url: str, cell: Cell) -> Outcome:
    """Computes a cell and writes its result, unless another run has done so in the meantime.

    A failure is an outcome, too. What the storage refuses is raised: no other cell could be kept.

    Raises:
        StorageError: the result cannot be written.
    """
    started = time.perf_counter()
    try:
        storage = open_storage(url)
        if is_finished(storage, cell):
            return Outcome()
        arrays = cell.compute(storage)
    except StorageError:
        raise
    except DpnormError as error:
        return Outcome(time.perf_counter() - started, " ".join(str(error).split()))
    except Exception as error:  # recorded with its traceback; the other cells go on
        short = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(time.perf_counter() - started, short, traceback.format_exc())
    write_arrays(storage, cell, arrays)
    return Outcome(time.perf_counter() - started)


def failure_file(cell: Cell) -> str:
    """Where the failure of a cell is told."""
    return f"failures/{cell.name}.json"


def record_outcome(storage: Storage, cell: Cell, outcome: Outcome) -> None:
    """Writes what went wrong beside the cells, or takes away what went wrong before.

    Raises:
        StorageError: it cannot be written.
    """
    if outcome.error is None:
        storage.remove(failure_file(cell))
        return
    told = {"cell": cell.to_dict(), "error": outcome.error, "traceback": outcome.trace}
    storage.write(failure_file(cell), json.dumps(told, indent=2).encode())


def recorded_error(storage: Storage, cell: Cell) -> str | None:
    """What went wrong with a cell when it was last tried; None where nothing did."""
    content = storage.read(failure_file(cell))
    if content is None:
        return None
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return "its record of a failure is damaged"
