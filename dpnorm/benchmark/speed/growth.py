"""How cost grows: against the batch size, the width of the network, the number of models."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

import dpnorm
from dpnorm.benchmark.speed.measure import Run, in_turns
from dpnorm.benchmark.speed.pools import pool_of
from dpnorm.benchmark.speed.result import Curve
from dpnorm.benchmark.speed.sizes import CLASSES, Sizes, Subject
from dpnorm.benchmark.speed.steps import OPACUS_MODES, SEED, plain_step, private_step

MODE = OPACUS_MODES[0]
PRIVATE, PLAIN = f"private step, {MODE}", "plain step"

Growth = Callable[[Sizes, torch.device], Curve]
GROWTH: dict[str, Growth] = {}


def growth(name: str) -> Callable[[Growth], Growth]:
    """Registers what measures the curve that `--only NAME` asks for."""

    def add(found: Growth) -> Growth:
        GROWTH[name] = found
        return found

    return add


def wide_lenet(width: int, *, in_channels: int = 1, num_classes: int = CLASSES) -> nn.Module:
    """The network `lenet` with `width` times its channels and hidden units."""
    first, second, hidden = 16 * width, 32 * width, 84 * width
    return nn.Sequential(
        nn.Conv2d(in_channels, first, kernel_size=5, padding=2),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, kernel_size=5, padding=2),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(second * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


@growth("batch-size")
def against_batch_size(sizes: Sizes, device: torch.device) -> Curve:
    """A private and a plain step of `lenet` with GroupNorm, for several batch sizes."""
    runs = [run for batch in sizes.batch_sizes for run in _steps(1, batch, sizes, device)]
    return _curve("batch size", "lenet", sizes.batch_sizes, runs, sizes, device)


@growth("width")
def against_width(sizes: Sizes, device: torch.device) -> Curve:
    """The same for networks with several times the channels."""
    runs = [
        run for width in sizes.widths for run in _steps(width, sizes.width_batch, sizes, device)
    ]
    subject = f"lenet, batch {sizes.width_batch}"
    return _curve("width", subject, sizes.widths, runs, sizes, device)


@growth("models")
def against_number_of_models(sizes: Sizes, device: torch.device) -> Curve:
    """Seconds a model of pools with several numbers of models."""
    shape = (1, sizes.side, sizes.side)
    subject = Subject("lenet", shape, batch=64, pool_records=512, pool_batch=64)
    pools = [pool_of(subject, size, sizes.pool_epochs) for size in sizes.models]
    times = _timed([pool.at_once for pool in pools], len(sizes.models), sizes, device)
    each = tuple(
        tuple(seconds / size for seconds in found)
        for size, found in zip(sizes.models, times, strict=True)
    )
    return Curve("models", f"lenet, {pools[0].lesson}", sizes.models, "pool, time a model", each)


def _steps(width: int, batch: int, sizes: Sizes, device: torch.device) -> tuple[Run, Run]:
    torch.manual_seed(SEED)
    network = dpnorm.convert(wide_lenet(width), to="group").model.to(device).train()
    x = torch.randn(batch, 1, sizes.side, sizes.side, device=device)
    y = torch.arange(batch, device=device) % CLASSES
    return private_step(network, x, y, MODE), plain_step(network, x, y)


def _curve(
    name: str,
    subject: str,
    at: tuple[int, ...],
    runs: list[Run],
    sizes: Sizes,
    device: torch.device,
) -> Curve:
    times = _timed(runs, len(at), sizes, device)
    return Curve(name, subject, at, PRIVATE, tuple(times[::2]), PLAIN, tuple(times[1::2]))


def _timed(
    runs: Sequence[Run], points: int, sizes: Sizes, device: torch.device
) -> list[tuple[float, ...]]:
    return in_turns(runs, repeats=sizes.repeats, budget=points * sizes.budget, device=device)
