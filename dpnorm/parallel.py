"""Running independent jobs in single-threaded processes, one a core.

Small models trained as separate single-threaded processes beat one process with many threads, so
this is how dpnorm uses the cores of a machine.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

Job = TypeVar("Job")
Result = TypeVar("Result")

# torch's optimizers import the second when the first of them is made, which takes a second
_PRELOADED = ("dpnorm.leakage.members", "dpnorm.training", "torch._dynamo")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    apart: bool = False,
) -> Iterator[tuple[int, Result]]:
    """Yields `(index, work(jobs[index]))` in the order in which the jobs finish.

    Args:
        work: a module-level function, or a partial of one, which is sent once to each process; it
            runs in a fresh process with one thread for arithmetic.
        jobs: arguments that can be pickled. They are pickled here and now: left to the queue, torch
            would move the storage of their tensors into shared memory, under the feet of numpy
            arrays that view it.
        workers: number of processes, default one a core. With one worker the jobs run in this
            process, one thread at a time, in order.
        apart: run them in another process even then.

    An exception in a job is raised here and stops the jobs that have not begun.
    """
    count = min(workers or cores(), len(jobs))
    if not jobs:
        return
    if count <= 1 and not apart:
        with torch_threads():
            for index, job in enumerate(jobs):
                yield index, work(job)
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            count, mp_context=_context(), initializer=_begin, initargs=(pickle.dumps(work),)
        ) as executor,
    ):
        pending = {executor.submit(_call, pickle.dumps(job)): i for i, job in enumerate(jobs)}
        try:
            for done in as_completed(pending):
                yield pending[done], done.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def start_ahead() -> None:
    """Begins to import what workers need, in a process of its own, while this one does other work.

    `run_jobs` does so itself; called at the start of a command it saves the seconds of the import.
    """
    if _forks():
        with _one_thread_each():
            _context()
            multiprocessing.forkserver.ensure_running()


def _context() -> "BaseContext":
    """Fresh processes, forked from one that has imported what they need, where there is fork.

    That one runs no thread of its own, unlike this process, which must not be forked.
    """
    if not _forks():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _forks() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started inside use one thread for arithmetic."""
    inherited = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in inherited.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def torch_threads(number: int = 1) -> Iterator[None]:
    """Lets torch use so many threads; the former number comes back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_work: Callable[[Any], Any] | None = None  # of this worker process


def _begin(work: bytes) -> None:
    import torch

    global _work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _work = pickle.loads(work)  # from the parent process, never from a file


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(job: bytes) -> Any:
    assert _work is not None
    return _work(pickle.loads(job))
