"""What a statement says of random numbers that come from elsewhere than the noise."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from dpnorm.privacy import PrivacyConfig
from dpnorm.privacy.statement import DRAWS
from dpnorm.training import train
from tests.training.small import PLAIN, images, network, with_settings

UNSEEDED = PrivacyConfig(noise_multiplier=1.0, steps=1)


class Scaled(nn.Module):
    """Scales all records alike, by a number from the generator of its kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.own = torch.Generator().manual_seed(0) if kind == "own" else None

    def forward(self, x):
        by = {
            "python": lambda: random.random(),
            "numpy": lambda: float(np.random.random()),
            "own": lambda: torch.rand((), generator=self.own),
            "torch": lambda: torch.rand(()),
        }[self.kind]()
        return x * (1 + by)


@pytest.mark.parametrize("kind", ["python", "numpy", "own"])
def test_draws_that_the_training_does_not_fill_are_not_covered(kind):
    # check does not repeat what Python and NumPy draw, and fails closed on the difference
    allowed = UNSEEDED.model_copy(update={"allow": "refuted"})
    statement = train(_with(Scaled(kind)), images(), PLAIN, allowed).statement
    assert DRAWS in statement.not_covered


@pytest.mark.parametrize("module", [Scaled("torch"), nn.Dropout(0.5), nn.Identity()])
def test_draws_that_come_from_the_operating_system_need_no_exception(module):
    settings = with_settings(PLAIN, views=2, augment="shift")
    statement = train(_with(module), images(), settings, UNSEEDED).statement
    assert not any("random draws" in item for item in statement.not_covered)


def _with(module: nn.Module) -> nn.Module:
    return nn.Sequential(module, network())
