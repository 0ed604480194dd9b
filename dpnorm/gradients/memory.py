"""Memory that is used again from step to step, so that the system does not clear it each time."""

import threading
import weakref
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

SMALL = 2**16  # bytes: less than this the allocator keeps anyway
SPARE = 1.25  # times what is needed is taken, since batches differ in size
_LARGEST = 2**25 - 2**16  # bytes: what glibc's limits follow ends at 32 MiB


def keep_freed_memory() -> None:
    """Lets glibc keep more of what a step frees, for the next step.

    It maps large pieces anew each time, and returns the end of the heap to the system when much of
    it is free: in what is fresh each page is cleared when it is first written, thousands a step.
    Both limits follow the largest piece that was mapped and freed, up to 32 MiB, so that one piece
    raises them, of which no page is ever written. Other allocators have limits of their own.

    Source: mallopt(3) of the Linux manual pages, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    torch.empty(_LARGEST, dtype=torch.uint8)


class Workspace:
    """Gives tensors without values; their memory comes back when the last tensor on it is gone.

    A large piece of fresh memory is cleared by the system, page by page, when it is first written,
    which costs as much as the arithmetic that fills it. On other devices than the processor
    torch's own allocator keeps memory, and is asked.
    """

    def __init__(self) -> None:
        keep_freed_memory()
        self._free: list[Tensor] = []  # of bytes
        self._taking = threading.Lock()

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A contiguous tensor of this shape, of the type and on the device of another one."""
        need = prod(shape) * like.element_size()
        if need < SMALL or like.device.type != "cpu":
            return like.new_empty(shape)
        with self._taking:
            memory = self._taken(need)
        array = memory.numpy()  # an owner of its own, which the tensors on it share
        weakref.finalize(array, self._free.append, memory).atexit = False
        return torch.from_numpy(array)[:need].view(like.dtype).view(*shape)

    def _taken(self, need: int) -> Tensor:
        """The smallest piece that is free and large enough, or a new one instead of the largest."""
        fitting = [m for m in self._free if need <= m.numel() <= 2 * SPARE * need]
        if fitting:
            best = min(fitting, key=Tensor.numel)
            self._free[:] = [m for m in self._free if m is not best]
            return best
        smaller = [m for m in self._free if m.numel() < need]
        if smaller:
            largest = max(smaller, key=Tensor.numel)
            self._free[:] = [m for m in self._free if m is not largest]
        return torch.empty(int(SPARE * need), dtype=torch.uint8)
