"""A user's mistake is one clear line before anything is trained or written."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from dpnorm.data import Records, load
from dpnorm.errors import InputError
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig, train
from tests.training.small import PLAIN, images, network, with_settings

DATA = images(24)
PRIVACY = PrivacyConfig(accountant="rdp", noise_multiplier=1.0)


def refused(message, model=None, data=DATA, config=PLAIN, privacy=None, **options):
    model = network() if model is None else model
    with pytest.raises(InputError, match=message) as caught:
        train(model, data, config, privacy, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wrong(model=None, data=DATA, config=PLAIN, **options):
    return {"model": model, "data": data, "config": config} | options


MISTAKES = {
    "a batch larger than the data": (
        wrong(config=with_settings(PLAIN, batch_size=25)),
        "batch_size is 25, but the data set has 24 training records: take a smaller batch",
    ),
    "one class": (
        wrong(data=Records(DATA.x, torch.zeros_like(DATA.y))),
        "are of one class, so that there is nothing to tell apart: needed are two classes",
    ),
    "labels out of range": (wrong(data=images(24, classes=4)), "is 3, but there are 3 classes"),
    "too few outputs": (
        wrong(model=network(classes=5), data=load("digits")),
        "does not take records of the shape|has 5 outputs, but digits has 10 classes",
    ),
    "one output": (wrong(model=network(classes=1)), "one class|there are 1 classes"),
    "another shape": (
        wrong(data=images(24, size=9)),
        r"does not take records of the shape \(1, 9, 9\): it raises RuntimeError",
    ),
    "no classifier": (wrong(model=nn.Conv2d(1, 2, 3)), r"gives \(2, 2, 4, 4\) for 2 records"),
    "one output of a batch": (
        wrong(model=nn.Sequential(network(), nn.Flatten(0), nn.Linear(6, 3))),
        r"gives \(3,\) for 2 records",
    ),
    "no parameter": (wrong(model=nn.Flatten()), "no trainable parameter: there is nothing to"),
    "frozen": (wrong(model=network().requires_grad_(False)), "no trainable parameter"),
    "no images": (
        wrong(
            model=nn.Linear(7, 3),
            data=Records(torch.rand(24, 7), DATA.y),
            config=with_settings(PLAIN, augment="shift"),
        ),
        "needs images",
    ),
    "no linear layer": (
        wrong(
            model=nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()),
            config=with_settings(PLAIN, zero_last_layer=True),
        ),
        "no linear layer: leave it out",
    ),
    "test records of another shape": (
        wrong(test=images(5, size=7)),
        r"the test records have the shape \(1, 7, 7\), the training records \(1, 6, 6\)",
    ),
    "no test record": (wrong(test=images(5).select([])), "there are no test records"),
    "an unknown origin": (wrong(weights_origin="mine"), "unknown origin 'mine': allowed are"),
}


@pytest.mark.parametrize("privacy", [None, PRIVACY], ids=["plain", "private"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(name, privacy, tmp_path):
    options, message = MISTAKES[name]
    refused(message, **options, privacy=privacy, checkpoint=tmp_path / "state")
    assert not any(tmp_path.iterdir())


def test_too_few_outputs_say_how_many_are_needed():
    data = load("digits")
    few = dataclasses.replace(data, train=data.train.select(slice(0, 30)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    refused("the model has 5 outputs, but digits has 10 classes: build it with num_classes=10",
            model, few)  # fmt: skip


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3])
@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_an_epsilon_that_cannot_be_met_names_one_that_can(epsilon, accountant, tmp_path):
    """Whoever takes the figure of the message as a budget gets a training within it."""
    config = with_settings(PLAIN, epochs=1)
    budget = PrivacyConfig(epsilon=epsilon, delta=1e-5, accountant=accountant, seed=0)
    said = refused(
        f"epsilon {epsilon:g} cannot be reached", config=config, privacy=budget,
        checkpoint=tmp_path / "state",
    )  # fmt: skip
    assert not any(tmp_path.iterdir())
    reached = float(re.search(r"take an epsilon of ([\d.]+) at least", said)[1])
    within = PrivacyConfig(epsilon=reached, delta=1e-5, accountant=accountant, seed=0)
    assert epsilon < train(network(), DATA, config, within).statement.epsilon <= reached


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'.*did you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0: it should be greater than or equal to 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"views": 0}, "views is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"optimizer": "adam"}, "optimizer is 'adam': it should be 'sgd' or 'adamw'"),
        ({"grad_sample_mode": "fast"}, "grad_sample_mode is 'fast'"),
        ({"physical_batch_size": 0}, "physical_batch_size is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_a_wrong_setting_names_itself_and_what_it_should_be(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(**settings)
    assert "\n" not in str(caught.value)
