"""Tasks of a Ray cluster, one a cell."""

import contextlib
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from dpnorm.benchmark.cells import Cell
from dpnorm.benchmark.code import code_versions
from dpnorm.benchmark.engines.ray_cluster import connected, import_ray, one_line, require_cluster
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.work import Outcome, compute_cell
from dpnorm.errors import DpnormError, InputError, StorageError
from dpnorm.parallel import cores

TRIES = 3  # of a cell whose worker was lost

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# a cell sees the devices that it sees in a local process
_ENVIRONMENT = _ONE_THREAD | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_NAMES = {"code": "dpnorm"}
_POLL = 5.0  # seconds between looks at the nodes while no cell finishes
_GROWTH = 120.0  # seconds in which a cluster may get a node that is large enough


class RayEngine:
    """See `Engine`: one task a cell, with as many CPUs as it has processes.

    All nodes need dpnorm and torch, in the same versions as here: a cell on a node that has others
    fails, as its result would be stored under a name that does not fit. The storage must be
    reachable from all of them under the same name: an object store, or a folder that is mounted
    everywhere. Processors of another kind may give results that differ in their last bits.

    A process that is connected to Ray already uses that connection, and keeps it.

    Args:
        address: HOST:PORT of a running cluster of which this machine is a node, or "auto". The
            cluster is left running. None starts one on this machine, on the loopback interface if
            Ray is not imported yet, and ends it after the run.
        workers: cells at once; default what the cluster has room for.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        ray = import_ray(loopback=address is None)
        if address is not None:
            if ray.is_initialized():
                raise InputError(
                    f"this process is connected to Ray already: leave out the address {address!r}, "
                    "or end the connection by ray.shutdown()"
                )
            require_cluster(address)
        self._address, self._workers = address, workers

    def run(self, url: str, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        if not open_storage(url).shared:
            raise InputError(
                f"the storage {url!r} lies in the memory of this process, where the workers of Ray "
                "cannot reach it: take a folder or an object store, or the engine 'local'"
            )
        if not cells:
            return
        cpus = max(self._workers or cores(), *(cell.processes for cell in cells))
        with connected(self._address, cpus):
            tasks = _Tasks(url, cells, self._workers or len(cells))
            try:
                while tasks.left():
                    yield from tasks.settled()
            finally:
                tasks.cancel()


class _Tasks:
    """Cells that wait, and those that the cluster computes, at most `room` at once.

    Ray is told not to try again by itself: it would do so for ever where memory is short.
    """

    def __init__(self, url: str, cells: Sequence[Cell], room: int) -> None:
        import ray

        self._ray, self._url, self._cells, self._room = ray, url, cells, room
        self._remote = ray.remote(max_retries=0, runtime_env={"env_vars": _ENVIRONMENT})(_task)
        self._waiting = deque(range(len(cells)))
        self._running: dict[Any, int] = {}
        self._lost: Counter[int] = Counter()
        self._short_since: float | None = None

    def left(self) -> bool:
        """Whether there are cells without an outcome."""
        return bool(self._waiting or self._running)

    def settled(self) -> Iterator[tuple[int, Outcome]]:
        """Gives the cluster what it has room for, and yields what has an outcome after a while."""
        while self._waiting and len(self._running) < self._room:
            self._submit(self._waiting.popleft())
        try:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL)
        except self._ray.exceptions.RayError as error:
            raise DpnormError(
                f"the Ray cluster was lost ({one_line(error)}): run the suite again on another; "
                "finished cells are kept"
            ) from None
        for reference in done:
            index = self._running.pop(reference)
            outcome = self._outcome(reference) or self._after_loss(index)
            if outcome is not None:
                yield index, outcome
        if not done:
            yield from self._without_room()

    def cancel(self) -> None:
        """Gives up what is not finished."""
        for reference in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _submit(self, index: int) -> None:
        cell = self._cells[index]
        task = self._remote.options(num_cpus=cell.processes, name=cell.describe())
        self._running[task.remote(self._url, cell, code_versions(cell.code_parts()))] = index

    def _outcome(self, reference: Any) -> Outcome | None:
        """None where the worker was lost."""
        errors = self._ray.exceptions
        lost = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.RaySystemError,
        )
        try:
            outcome: Outcome = self._ray.get(reference)
            return outcome
        except errors.RayTaskError as error:
            if isinstance(error.cause, StorageError):
                raise StorageError(str(error.cause)) from None
            return Outcome(error=one_line(error.cause), trace=str(error))
        except lost:
            return None
        except errors.RayError as error:
            return Outcome(error=one_line(error), trace=traceback.format_exc())

    def _after_loss(self, index: int) -> Outcome | None:
        """What a lost worker means for its cell: None where it is tried again."""
        self._lost[index] += 1
        if self._lost[index] >= TRIES:
            return Outcome(error=f"its worker was lost {TRIES} times (memory?)")
        self._waiting.append(index)
        return None

    def _without_room(self) -> Iterator[tuple[int, Outcome]]:
        """Gives up cells that are larger than every node, when no larger one has come in time."""
        alive = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        largest = max(alive, default=0)
        stuck = [r for r, i in self._running.items() if self._cells[i].processes > largest]
        if not stuck:
            self._short_since = None
            return
        self._short_since = self._short_since or time.monotonic()
        if time.monotonic() - self._short_since < _GROWTH:
            return
        for reference in stuck:
            self._ray.cancel(reference, force=True)
            index = self._running.pop(reference)
            yield (
                index,
                Outcome(
                    error=f"it needs a node with {self._cells[index].processes} CPUs; the largest "
                    f"of the Ray cluster has {largest:g}"
                ),
            )


def _task(url: str, cell: Cell, versions: dict[str, str]) -> Outcome:
    """Computes a cell on a node of the cluster."""
    import torch

    here = code_versions(cell.code_parts())
    unlike = [_NAMES.get(n, n) for n, version in versions.items() if here[n] != version]
    if unlike:
        other = " and another ".join(unlike)
        return Outcome(
            error=f"the node {socket.gethostname()} has another {other} than the machine that "
            "started the run: install the same versions on all nodes"
        )
    torch.set_num_threads(1)
    return compute_cell(url, cell)
