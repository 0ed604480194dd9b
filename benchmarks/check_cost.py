"""What `check` costs, in forward passes of the same model at 3x3x224x224.

    python benchmarks/check_cost.py [NAME ...]

Prints a Markdown table for torchvision's classification models (or the named ones), in training and
in evaluation mode, with the median ratio behind it. One thread.
"""

import statistics
import sys
import time

import torch
import torchvision
from torch import Tensor, nn

import dpnorm

REPEATS = 3
LARGEST = 100e6  # parameters; larger models take too long for a table


def forward_seconds(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        model(x)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | mode | verdict | forward (s) | check (s) | ratio |")
    print("|---|---|---|---|---|---|")
    dpnorm.check(nn.Linear(2, 2), torch.randn(3, 2))  # what is imported once is not counted
    ratios = []
    for name in names or torchvision.models.list_models(module=torchvision.models):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            continue
        side = 299 if name == "inception_v3" else 224
        x = torch.randn(3, 3, side, side)
        for mode in ("train", "eval"):
            model.train(mode == "train")
            forward = forward_seconds(model, x)
            started = time.perf_counter()
            report = dpnorm.check(model, x)
            seconds = time.perf_counter() - started
            ratios.append(seconds / forward)
            print(
                f"| {name} | {mode} | {report.verdict} | {forward:.2f} | {seconds:.2f} "
                f"| {ratios[-1]:.1f} |",
                flush=True,
            )
    print(
        f"\nmedian {statistics.median(ratios):.1f}, largest {max(ratios):.1f} over {len(ratios)} "
        f"checks; torch {torch.__version__}, one thread"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
