"""Engines: where cells are computed. All give the same results, bit for bit."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from dpnorm.benchmark.cells import Cell
from dpnorm.benchmark.work import Outcome
from dpnorm.errors import InputError, unknown_name

NAMES = ("local", "ray")


class Engine(Protocol):
    """Computes cells with one thread each, as many at once as it has room for."""

    def run(self, url: str, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        """Yields (index, outcome) as the cells finish; their results are in the storage at `url`.

        A cell whose worker was lost is tried again, and fails when it has lost several.

        Raises:
            StorageError: a result cannot be written; cells that have not begun are given up.
        """


def open_engine(
    name: str = "local", *, workers: int | None = None, address: str | None = None
) -> Engine:
    """The engine of a name.

    Args:
        name: "local" or "ray".
        workers: cells at once; default one a core (local), or what the cluster has room for (ray).
        address: of a Ray cluster that runs already; None starts one on this machine.

    Raises:
        InputError: an unknown name, or an address for the local engine.
        MissingExtraError: Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}: at least 1 is needed")
    if name == "ray":
        from dpnorm.benchmark.engines.on_ray import RayEngine

        return RayEngine(address, workers)
    if name != "local":
        raise unknown_name("engine", name, NAMES)
    if address is not None:
        raise InputError(f"the address {address!r} is of a Ray cluster: add --engine ray")
    from dpnorm.benchmark.engines.local import LocalEngine

    return LocalEngine(workers)
