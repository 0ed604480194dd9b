"""Telling each finished cell to an experiment tracker."""

from typing import Protocol

from dpnorm.benchmark.cells import Cell
from dpnorm.benchmark.storage import Storage


class Tracker(Protocol):
    """Is given each finished cell, once or several times."""

    def log(self, cell: Cell, storage: Storage) -> None:
        """Takes down the parameters, metrics and artifacts of a finished cell."""
