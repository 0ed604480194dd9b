"""Which way of finding gradients of records is the fastest for a model on this machine."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpnorm.detection import Report
from dpnorm.errors import DpnormError, RefusedError
from dpnorm.training.clipped import ClippedSteps

MODES = ("lean", "hooks", "ew", "functorch", "ghost")
ROUNDS = 3  # each mode is timed so often, after one round that is not; the best counts


def fastest_mode(
    network: nn.Module,
    report: Report,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    require: Callable[[str], None],
    fitting: Callable[[str], int],
    *,
    most: int,
) -> str:
    """The mode with the least time a record; modes that cannot express the model are passed over.

    Each runs steps of a copy of the model on random records, as many at once as fit.

    Args:
        network: that was judged, in training mode; it is copied.
        report: of `check`.
        draw: gives so many random records with labels.
        require: raises a DpnormError where a mode cannot express the model.
        fitting: how many records a mode can run at once.
        most: records at once that a batch can have.
    """
    times: dict[str, float] = {}
    for mode in MODES:
        try:
            require(mode)
            x, y = draw(min(most, fitting(mode)))
            times[mode] = _seconds(copy.deepcopy(network), report, mode, x, y) / len(x)
        except DpnormError:  # this mode cannot express the model, and says so: another one can
            continue
    if not times:
        raise RefusedError(
            "refused: no mode gives this model gradients of records; grad_sample_mode='hooks' "
            "says why"
        )
    return min(times, key=lambda mode: times[mode])


def _seconds(network: nn.Module, report: Report, mode: str, x: Tensor, y: Tensor) -> float:
    trainable = [p for p in network.parameters() if p.requires_grad]
    steps = ClippedSteps(
        network,
        report.rows,
        mode,
        torch.optim.SGD(trainable, lr=0.0),
        noise=1.0,
        clip=1.0,
        ratio=1.0,
        expected=len(x),
        generator=torch.Generator(x.device),
    )
    best = float("inf")
    for number in range(1 + ROUNDS):
        started = time.perf_counter()
        steps.take([(x, y)])
        if x.is_cuda:
            torch.cuda.synchronize()
        if number:
            best = min(best, time.perf_counter() - started)
    return best
