"""Step time of a private training: private-batch against group, in the same mode.

    python benchmarks/engine_cost.py [MODEL ...] > table.md

Each figure is the median of the steps of one process with one thread; the two variants take turns,
so that other work on the machine slows both alike.
"""

import statistics
import sys
import time
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm

BATCH, STEPS, CLASSES = 64, 15, 10
MODELS = ("lenet", "vgg-small", "resnet8", "resnet20")
SIDE = 28
MODES = ("hooks", "functorch", "ghost")


class Training:
    """One model that takes private steps on one batch."""

    def __init__(self, model: str, variant: str, mode: str) -> None:
        torch.manual_seed(0)
        source = dpnorm.models.build(model, in_channels=1, num_classes=CLASSES)
        network = dpnorm.convert(source, to=variant).model.train()
        x = torch.randn(BATCH, 1, SIDE, SIDE)
        y = torch.arange(BATCH) % CLASSES
        made = dpnorm.PrivacyEngine(accountant="rdp").make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            criterion=nn.CrossEntropyLoss(),
            grad_sample_mode=mode,
        )
        self.network, self.optimizer = made[0], made[1]
        self.criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
        self.batch = x, y

    def step(self) -> float:
        """Takes one step; the seconds it took."""
        start = time.perf_counter()
        x, y = self.batch
        self.optimizer.zero_grad()
        self.criterion(self.network(x), y).backward()
        self.optimizer.step()
        return time.perf_counter() - start


def compare(model: str, mode: str) -> tuple[float, float]:
    """Median seconds a step of group and of private-batch."""
    trainings = [Training(model, variant, mode) for variant in ("group", "private-batch")]
    times: list[list[float]] = [[], []]
    for round_ in range(STEPS + 2):
        for training, found in zip(trainings, times, strict=True):
            seconds = training.step()
            if round_ >= 2:
                found.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | mode | group, ms | private-batch, ms | ratio |")
    print("|---|---|---:|---:|---:|")
    for model in sys.argv[1:] or MODELS:
        for mode in MODES:
            group, private = compare(model, mode)
            print(
                f"| {model} | {mode} | {1000 * group:.0f} | {1000 * private:.0f} | "
                f"{private / group:.2f} |",
                flush=True,
            )
            print(f"{model} {mode} done", file=sys.stderr)


if __name__ == "__main__":
    main()
