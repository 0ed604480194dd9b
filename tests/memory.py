"""Memory between tests of large networks."""

import ctypes
import gc
import sys


def give_back() -> None:
    """Collects what is garbage, and lets the C library return what is free to the system.

    Networks of many sizes, one after the other, leave its heap in pieces: a process that judged
    sixty of them held 12 GB, of which less than 1 GB was in use.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
