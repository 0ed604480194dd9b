"""The run folder: one file for each finished cell, written whole or not at all."""

import json
import zipfile
from pathlib import Path

import numpy as np

from dpnorm.benchmark.cells import Cell
from dpnorm.files import replacing
from dpnorm.leakage import Member


class Store:
    """Cells in a folder, by their names."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, cell: Cell) -> Path:
        """Where a cell's result lies."""
        return self.folder / "cells" / f"{cell.name}.npz"

    def save(self, cell: Cell, member: Member) -> None:
        """Writes a cell's result."""
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "cell": cell.to_dict(),
            "accuracy": member.accuracy,
            "statement": member.statement,
            "seconds": member.seconds,
            "history": list(member.history),
        }
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                keep=member.keep,
                logits=member.logits,
                facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
            )

    def load(self, cell: Cell) -> Member | None:
        """A finished cell's result; None when there is none or its file is damaged."""
        path = self.path(cell)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                facts = json.loads(arrays["facts"].tobytes())
                return Member(
                    keep=arrays["keep"],
                    logits=arrays["logits"],
                    accuracy=facts["accuracy"],
                    statement=facts["statement"],
                    seconds=facts["seconds"],
                    history=tuple(facts["history"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # computed again, and replaced
