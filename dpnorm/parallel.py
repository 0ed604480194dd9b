"""Running independent jobs in single-threaded processes, one a core.

Small models trained as separate single-threaded processes beat one process with many threads, so
this is how dpnorm uses the cores of a machine.
"""

import contextlib
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Yields `(index, work(jobs[index]))` in the order in which the jobs finish.

    Args:
        work: a module-level function; it runs in a fresh process with one thread for arithmetic.
        jobs: arguments that can be pickled. They are pickled here and now: left to the queue, torch
            would move the storage of their tensors into shared memory, under the feet of numpy
            arrays that view it.
        workers: number of processes, default one a core. With one worker the jobs run in this
            process, one thread at a time, in order.

    An exception in a job is raised here and stops the jobs that have not begun.
    """
    count = min(workers or cores(), len(jobs))
    if count <= 1:
        with one_thread():
            for index, job in enumerate(jobs):
                yield index, work(job)
        return
    context = multiprocessing.get_context("spawn")
    inherited = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        with ProcessPoolExecutor(
            count, mp_context=context, initializer=_use_one_thread
        ) as executor:
            pending = {
                executor.submit(_call, pickle.dumps((work, job))): i for i, job in enumerate(jobs)
            }
            try:
                for done in as_completed(pending):
                    yield pending[done], done.result()
            finally:
                executor.shutdown(wait=True, cancel_futures=True)
    finally:
        for name, value in inherited.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread; the former number comes back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _call(payload: bytes) -> Any:
    work, job = pickle.loads(payload)  # from the parent process, never from a file
    return work(job)
