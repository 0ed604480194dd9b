"""Training steps that can be timed: plain, private by dpnorm, private by stock Opacus.

Each takes steps of a copy of a network on one batch that is always the same, with SGD without
momentum at a rate that leaves the weights where they are, for all practical purposes.
"""

import copy
from collections.abc import Callable

import opacus
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dpnorm.errors import DpnormError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training.config import Settings
from dpnorm.training.private import PrivateSteps
from dpnorm.training.team import Team

OPACUS_MODES = ("hooks", "functorch", "ghost", "ew")
MODES = ("lean", *OPACUS_MODES)
AUTO = "auto"
NOISE, CLIP, RATE, SEED = 1.0, 1.0, 1e-5, 0
_SHARE = 16  # the records of a step are one in so many
_STEPS = 10**7  # more than are ever taken

Step = Callable[[], object]


class NotApplicableError(DpnormError):
    """What is to be measured does not exist for this network; the message says why."""


def plain_step(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Forward, cross entropy, backward, SGD."""
    own = copy.deepcopy(network)
    optimizer = torch.optim.SGD(own.parameters(), lr=RATE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(own(x), y).backward()
        optimizer.step()

    return step


def private_steps(network: nn.Module, x: Tensor, mode: str) -> PrivateSteps:
    """A private training as `dpnorm.train` runs it.

    Raises:
        DpnormError: `check` does not prove the network, or the mode cannot express it.
    """
    settings = Settings(
        epochs=1,
        batch_size=len(x),
        physical_batch_size=len(x),
        lr=RATE,
        momentum=0.0,
        ema=0.0,
        grad_sample_mode=mode,
    )
    privacy = PrivacyConfig(noise_multiplier=NOISE, clip=CLIP, steps=_STEPS, seed=SEED)
    return PrivateSteps(
        copy.deepcopy(network),
        _SHARE * len(x),
        tuple(x.shape[1:]),
        settings,
        privacy,
        team=Team(device=x.device),
    )


def private_step(network: nn.Module, x: Tensor, y: Tensor, mode: str) -> Step:
    """A step of `dpnorm.train`: the batch is drawn, accounted, clipped, noised and applied.

    Who is drawn is thrown away in favour of the batch that is given, so that all steps are of one
    size.

    Raises:
        DpnormError: as `private_steps`.
    """
    steps = private_steps(network, x, mode)
    drawn = steps.positions(0)

    def step() -> None:
        next(drawn)
        steps.take(0, [(x, y)])

    return step


def opacus_step(network: nn.Module, x: Tensor, y: Tensor, mode: str) -> Step:
    """A step of stock Opacus with the same noise and clipping norm. One is taken here.

    Raises:
        NotApplicableError: Opacus cannot train the network in this mode.
    """
    own = copy.deepcopy(network)
    criterion = nn.CrossEntropyLoss()
    try:
        made = opacus.PrivacyEngine(accountant="rdp").make_private(
            module=own,
            optimizer=torch.optim.SGD(own.parameters(), lr=RATE),
            criterion=criterion,
            data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
            poisson_sampling=False,
            noise_generator=torch.Generator(x.device).manual_seed(SEED),
            grad_sample_mode=mode,
        )
        module, optimizer = made[0], made[1]
        loss = made[2] if mode == "ghost" else criterion

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(module(x), y).backward()
            optimizer.step()

        step()
    except Exception as error:  # Opacus and torch raise errors of many kinds
        raise NotApplicableError(
            f"stock Opacus cannot train it in mode {mode!r}: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    return step
