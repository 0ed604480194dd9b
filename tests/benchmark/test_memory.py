import mmap
import sys

import pytest

from dpnorm.benchmark.memory import peak_memory


def hold(size):
    """Writes to every page of memory that is the system's own and goes back to it."""
    with mmap.mmap(-1, size) as memory:
        for start in range(0, size, mmap.PAGESIZE):
            memory[start] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak of memory")
def test_the_peak_is_that_of_what_ran_inside_and_not_of_what_ran_before():
    hold(200 * 2**20)  # larger than what follows
    with peak_memory() as nothing:
        pass
    with peak_memory() as held:
        hold(100 * 2**20)
    assert 90 * 2**20 < held.peak - nothing.peak < 150 * 2**20
