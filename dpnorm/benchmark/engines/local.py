"""Processes of this machine, with one thread each."""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from dpnorm.benchmark.cells import Cell
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.work import Outcome, compute_cell
from dpnorm.parallel import cores, run_jobs

TRIES = 3  # of a cell whose process was lost


class LocalEngine:
    """See `Engine`.

    Args:
        workers: processes; default one a core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def run(self, url: str, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        alone = not open_storage(url).shared  # what lies in memory is seen in this process only
        work = functools.partial(compute_cell, url)
        for processes in sorted({cell.processes for cell in cells}):
            workers = 1 if alone else max(1, (self._workers or cores()) // processes)
            chosen = [i for i, cell in enumerate(cells) if cell.processes == processes]
            yield from _surviving(work, cells, chosen, workers, inside=alone)


def _surviving(
    work: "functools.partial[Outcome]",
    cells: Sequence[Cell],
    wanted: list[int],
    workers: int,
    *,
    inside: bool,
) -> Iterator[tuple[int, Outcome]]:
    """Runs cells whose processes may be killed, say for want of memory.

    A pool of processes does not tell which cell killed it: those that may have run are tried one
    by one, each in a process of its own.
    """
    left = list(wanted)
    lost: Counter[int] = Counter()
    while left:
        suspects = [i for i in left if lost[i]]
        batch = suspects[:1] or list(left)
        try:
            jobs = [cells[i] for i in batch]
            for place, outcome in run_jobs(
                work, jobs, workers=1 if suspects else workers, apart=not inside
            ):
                left.remove(batch[place])
                yield batch[place], outcome
        except BrokenProcessPool:
            begun = [i for i in batch if i in left][: 2 * workers + 1]
            lost.update(begun)
            for index in begun:
                if lost[index] >= TRIES and len(batch) == 1:
                    left.remove(index)
                    yield index, Outcome(error=f"its process was killed {TRIES} times (memory?)")
