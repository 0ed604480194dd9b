"""Trainings in a process of their own that is killed at some step."""

import multiprocessing
import os
import signal

from dpnorm.training.plain import PlainSteps
from dpnorm.training.private import PrivateSteps


def kill_at(step: int, when: str, run) -> None:
    """Calls `run` in a process that gets a SIGKILL in its step 0, 1, ...

    Args:
        step: counted from where this process began.
        when: "before" the step is taken, or "after" it, before anybody can write that it was.
        run: takes the training.
    """
    context = multiprocessing.get_context("fork")  # which need not import torch once more
    process = context.Process(target=_run, args=(step, when, run))
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
    assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode}"


def _run(step: int, when: str, run) -> None:
    for kind in (PlainSteps, PrivateSteps):
        kind.take = _deadly(kind.take, step, when)
    run()


def _deadly(take, last: int, when: str):
    taken = iter(range(10**9))

    def taking(self, step, chunks):
        here = next(taken) == last
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        loss = take(self, step, chunks)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    return taking
