"""A cell that kills the process that computes it, as the kernel does when memory ends."""

import os
import signal

from dpnorm.benchmark.cells import MemberCell


class DeadlyCell(MemberCell):
    """Never finished."""

    def compute(self, storage):
        os.kill(os.getpid(), signal.SIGKILL)
