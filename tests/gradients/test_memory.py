"""Memory that is used again: only when nobody holds it, and by nobody else."""

import gc
import platform
import subprocess
import sys
import threading

import pytest
import torch

from dpnorm.gradients.memory import SMALL, Workspace

LARGE = (SMALL // 4, 4)  # of single precision: four times what is small


def test_memory_comes_back_when_the_last_view_is_gone():
    memory, like = Workspace(), torch.zeros(1)
    first = memory.empty(LARGE, like)
    place, view = first.data_ptr(), first[3:].view(-1)
    del first
    second = memory.empty(LARGE, like)
    assert second.data_ptr() != place  # the view holds it
    view.fill_(1.0)
    assert second.fill_(2.0).eq(2).all()
    assert view.eq(1).all()
    del view
    assert memory.empty(LARGE, like).data_ptr() == place


def test_shapes_and_types_differ_from_one_use_to_the_next():
    memory = Workspace()
    first = memory.empty(LARGE, torch.zeros(1))
    place = first.data_ptr()
    assert first.is_contiguous()
    assert place % 64 == 0
    del first
    second = memory.empty((LARGE[0] // 2, 4), torch.zeros(1, dtype=torch.float64))
    assert second.dtype == torch.float64
    assert second.data_ptr() == place


def test_a_larger_piece_takes_the_place_of_a_smaller_one():
    memory, like = Workspace(), torch.zeros(1)
    for rows in (1, 2, 4, 8, 16):
        memory.empty((rows * LARGE[0], 4), like)
        gc.collect()
    assert len(memory._free) == 1


def test_little_is_left_to_the_allocator():
    memory = Workspace()
    memory.empty((2, 3), torch.zeros(1))
    assert not memory._free


def test_a_tensor_outlives_the_workspace():
    memory = Workspace()
    kept = memory.empty(LARGE, torch.zeros(1)).fill_(3.0)
    del memory
    gc.collect()
    assert kept.eq(3).all()


def test_no_two_threads_have_the_same_memory():
    memory, like, wrong = Workspace(), torch.zeros(1), []

    def work(number):
        for _ in range(200):
            own = memory.empty(LARGE, like).fill_(number)
            if not own.eq(number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


STEPS = """
import resource
import torch
from dpnorm.gradients.memory import keep_freed_memory

def fresh_pages():
    def step():
        for tensor in [torch.empty(2**21) for _ in range(6)]:  # 8 MiB each
            tensor.fill_(1.0)
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(fresh_pages())
keep_freed_memory()
fresh_pages()
print(min(fresh_pages() for _ in range(3)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limits are glibc's")
def test_the_c_library_keeps_what_a_step_frees():
    """Behind it the best of three counts: under load the heap was seen to grow once more."""
    command = [sys.executable, "-c", STEPS]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    before, after = map(int, found.stdout.split())
    assert before > 10_000  # 5 steps of 12,288 pages, nearly all of them
    assert after < 100
