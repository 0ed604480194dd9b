import sys

import numpy as np
import pytest

from dpnorm.benchmark.memory import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak of memory")
def test_the_peak_is_that_of_what_ran_inside_and_not_of_what_ran_before():
    before = np.ones(200 * 2**20 // 8)  # larger than what follows, and given back
    del before
    with peak_memory() as nothing:
        pass
    with peak_memory() as held:
        np.ones(100 * 2**20 // 8)
    assert 90 * 2**20 < held.peak - nothing.peak < 150 * 2**20
