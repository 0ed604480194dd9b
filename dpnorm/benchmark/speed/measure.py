"""Timing several runs in turns, and the memory that one takes."""

import contextlib
import ctypes
import gc
import math
import mmap
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dpnorm.benchmark.memory import peak_memory
from dpnorm.benchmark.speed.interval import ENOUGH

Run = Callable[[], object]

SHORTEST = 0.005  # seconds of one sample: what is faster is run several times
FEWEST = 3  # rounds
_OVERDRAWN = 3  # budgets that 6 rounds may take


def in_turns(
    runs: Sequence[Run], *, repeats: int, budget: float, device: torch.device
) -> list[tuple[float, ...]]:
    """Seconds of each run in each round: [run][round].

    Every round takes each run once, by turns from the first to the last and from the last to the
    first, so that a machine that slows down, and what a run leaves in the caches, fall on all
    alike. The number of rounds follows from the warm-up and not from what is measured, which would
    bias the intervals.

    Args:
        runs: each is run once for warm-up, and twice where that is short.
        repeats: rounds at most.
        budget: seconds at which fewer rounds are taken, see `rounds_within`.
        device: that is waited for.
    """
    gc.collect()
    warm = [_warm_up(run, device, budget) for run in runs]
    calls = [max(1, math.ceil(SHORTEST / seconds)) for seconds in warm]
    each = sum(seconds * count for seconds, count in zip(warm, calls, strict=True))
    rounds = rounds_within(budget, each, repeats)
    found: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            found[index].append(_seconds(runs[index], device, calls[index]))
    return [tuple(column) for column in found]


def rounds_within(budget: float, each: float, repeats: int) -> int:
    """How many rounds of `each` seconds are taken: at most `repeats`, as many as the budget allows.

    Where it allows fewer than 6, which intervals at 95% need, 6 all the same if they fit into three
    times the budget, and else 3.

    >>> [rounds_within(10, each, 15) for each in (0.1, 1, 2, 5, 50)]
    [15, 10, 6, 6, 3]
    """
    floor = ENOUGH if ENOUGH * each <= _OVERDRAWN * budget else FEWEST
    return min(repeats, max(floor, int(budget / each)))


def _warm_up(run: Run, device: torch.device, budget: float) -> float:
    first = _seconds(run, device)
    return first if first > budget else _seconds(run, device)


def _seconds(run: Run, device: torch.device, calls: int = 1) -> float:
    _wait_for(device)
    started = time.perf_counter()
    for _ in range(calls):
        run()
    _wait_for(device)
    return (time.perf_counter() - started) / calls


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_growth(run: Run, device: torch.device) -> int | None:
    """By how many bytes the memory in use grew at most while `run` ran.

    On the CPU that of the resident set of this process, where Linux tells; elsewhere None.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - allocated
    _trim()
    before = _resident()
    with peak_memory() as found:
        run()
    return None if found.peak is None else found.peak - before


def _trim() -> None:
    """What is free goes back to the system, so that it counts when it is used again."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * mmap.PAGESIZE if pages.is_file() else 0
