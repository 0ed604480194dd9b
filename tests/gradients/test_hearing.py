"""Gradients of outputs that are written in place, against the model without the writing."""

import pytest
import torch
from torch import nn

from dpnorm.errors import InputError
from dpnorm.gradients import captured, per_record_gradients
from dpnorm.gradients.hearing import hear
from tests.privacy.cases import Viewed

MODULES = {
    "linear": lambda: nn.Linear(5, 4),
    "linear without a bias": lambda: nn.Linear(5, 4, bias=False),
    "instance norm": lambda: nn.InstanceNorm1d(3, affine=True),
    "convolution": lambda: nn.Conv1d(3, 2, 2),
}


def heard_gradient(module, x, activation):
    output = module(x)
    heard = []
    lost = hear(module, output, heard.append)
    activation(output).square().sum().backward()
    assert len(heard) == 1
    return heard[0], lost


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("writes", [torch.relu_, lambda x: x[:, 1:].mul_(3.0), lambda x: x])
def test_gradients_are_heard_whatever_is_written(name, writes):
    module, x = MODULES[name](), torch.randn(6, 3, 5)

    def apart(output):  # the same, on a copy
        copy = output * 1.0
        written = writes(copy)
        return written if written.shape == copy.shape else copy

    def in_place(output):
        written = writes(output)
        return written if written.shape == output.shape else output

    found, lost = heard_gradient(module, x, in_place)
    expected, _ = heard_gradient(module, x, apart)
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0
    assert lost is None


def test_a_view_of_another_module_tells_that_its_gradient_was_lost():
    module, x = Viewed(5), torch.randn(6, 3, 5)
    _, lost = heard_gradient(module, x, torch.relu)
    assert not lost()
    output = module(x)
    heard = []
    lost = hear(module, output, heard.append)
    output.relu_().sum().backward()
    assert lost()
    assert not heard


def run_of(model, x):
    return lambda: model(x)


def test_measurements_find_the_gradients_of_what_is_written_and_refuse_what_is_lost():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 5)
    for first in (nn.InstanceNorm1d(3, affine=True), Viewed(5)):
        written, apart = (
            nn.Sequential(first, nn.ReLU(inplace=inplace)) for inplace in (True, False)
        )

        def gradients(model, first=first):
            return per_record_gradients(
                model, run_of(model, x), lambda out: out.square().sum(), [("0", first)], records=6
            )

        expected = gradients(apart)
        if isinstance(first, Viewed):
            with pytest.raises(InputError, match="written in place"):
                gradients(written)
            continue
        found = gradients(written)
        for parameter in first.parameters():
            torch.testing.assert_close(found[parameter], expected[parameter])


def test_captured_tells_what_was_lost():
    model = nn.Sequential(Viewed(5), nn.ReLU(inplace=True))
    with captured([("0", model[0])]) as calls:
        model(torch.randn(2, 3, 5)).sum().backward()
    assert calls[0].gradient is None
    assert calls[0].lost()
