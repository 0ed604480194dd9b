"""What `check` costs, in forward passes of the same model at 3x3x224x224, and in memory.

    python benchmarks/check_cost.py [NAME ...]

Prints a Markdown table for torchvision's classification models (or the named ones), in training and
in evaluation mode, with the ratios' median and the largest behind it. The time of a forward pass is
the median of three, without gradients, that of `check` one run. Memory is the growth of the
process's peak resident set during `check` over that during one forward and backward pass (Linux
only). One thread.
"""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

import dpnorm

REPEATS = 3


def forward_seconds(model: nn.Module, x: Tensor) -> float:
    """The median time of a forward pass without gradients."""
    with torch.no_grad():
        model(x)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def forward_and_backward(model: nn.Module, x: Tensor) -> None:
    """One training step's passes."""
    out = model(x)
    (out if isinstance(out, Tensor) else out[0]).sum().backward()
    model.zero_grad()


def peak_growth(run: Callable[[], object]) -> int:
    """By how many KiB the process's resident set grew at most while `run` ran."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back, so that it counts again
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def main(names: list[str]) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | mode | verdict | forward (s) | check (s) | forward passes | memory |")
    print("|---|---|---|---|---|---|---|")
    dpnorm.check(nn.Linear(2, 2), torch.randn(3, 2))  # what is imported once is not counted
    ratios, memories, slow = [], [], []
    for name in names or torchvision.models.list_models(module=torchvision.models):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        side = 299 if name == "inception_v3" else 224
        x = torch.randn(3, 3, side, side)
        for mode in ("train", "eval"):
            model.train(mode == "train")
            forward = forward_seconds(model, x)
            step = peak_growth(lambda model=model, x=x: forward_and_backward(model, x))
            growth = peak_growth(lambda model=model, x=x: dpnorm.check(model, x))
            started = time.perf_counter()
            report = dpnorm.check(model, x)
            seconds = time.perf_counter() - started
            ratios.append(seconds / forward)
            memories.append(growth / step)
            if ratios[-1] > 15 and seconds > 1:
                slow.append(f"{name} ({mode})")
            print(
                f"| {name} | {mode} | {report.verdict} | {forward:.2f} | {seconds:.2f} "
                f"| {ratios[-1]:.1f} | {memories[-1]:.2f} |",
                flush=True,
            )
    print(
        f"\n{len(ratios)} checks: {statistics.median(ratios):.1f} forward passes in the median, "
        f"{max(ratios):.1f} at most; above 15 and above one second: {', '.join(slow) or 'none'}; "
        f"memory {statistics.median(memories):.2f} in the median, {max(memories):.2f} at most; "
        f"torch {torch.__version__}, one thread"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
