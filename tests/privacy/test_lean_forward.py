"""Mode "lean" in a model: what stands in a module's forward pass, and what falls back to hooks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import check
from dpnorm.errors import RefusedError
from dpnorm.gradients.factors import Outer, dense
from dpnorm.privacy import PrivateOptimizer, hooks_for
from dpnorm.privacy.lean_forward import LeanForward, PoolForward
from tests.privacy.test_grad_sample import alone

RECORDS = 5


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(RECORDS, 2, 6, 6, generator=generator), torch.arange(RECORDS) % 3


def assert_gradients(model, x, y, run=lambda model, x: model(x)):
    """Those of the wrapped model are those of each record alone."""
    expected = alone(model, x, y)
    wrapped = hooks_for(model, check(model, x).rows, mode="lean")
    F.cross_entropy(run(wrapped, x), y).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(dense(parameter.grad_sample), gradient, rtol=1e-4, atol=1e-6)
    return wrapped


def test_no_gradient_of_the_batch_is_computed_and_a_linear_layer_keeps_its_factors():
    model, (x, y) = network(), batch()
    assert_gradients(model, x, y)
    assert all(p.grad is None for p in model.parameters())
    assert isinstance(model[4].weight.grad_sample, Outer)


def test_a_batch_that_is_overwritten_before_the_step_is_refused():
    """Its factors would be those of other records, which count in the next batch too."""
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(4, 3)), torch.randn(RECORDS, 4), torch.arange(RECORDS) % 3
    wrapped = hooks_for(model, check(model, x).rows, mode="lean")
    optimizer = PrivateOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=RECORDS,
    )
    F.cross_entropy(wrapped(x), y).backward()
    x.copy_(torch.randn(RECORDS, 4))  # as a loader does that fills one tensor again and again
    before = model[0].weight.detach().clone()
    with pytest.raises(RefusedError, match="written in place before the step"):
        optimizer.step()
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("wrap", [True, False])
def test_cleaning_up_leaves_the_plain_model(wrap):
    model, (x, _) = network(), batch()
    before = model(x)
    hooks = hooks_for(model, check(model, x).rows, mode="lean", wrap_model=wrap)
    assert isinstance(model[0].forward, LeanForward)
    hooks.cleanup()
    assert not any("forward" in vars(m) for m in model.modules())
    assert torch.equal(model(x), before)


def test_a_copy_runs_with_its_own_weights_and_as_an_ordinary_module():
    model, (x, y) = network(), batch()
    hooks_for(model, check(model, x).rows, mode="lean")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    plain = network()
    plain.load_state_dict(other.state_dict())
    assert torch.equal(other(x), plain(x))
    F.cross_entropy(other(x), y).backward()
    assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad_sample is None for p in model.parameters())
    alone = copy.deepcopy(model[4])  # of the module alone, too
    with torch.no_grad():
        alone.weight.zero_()
        alone.bias.zero_()
    assert not alone(torch.randn(3, 64)).any()


def test_weights_that_two_modules_share_have_the_sum_of_both():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))

    torch.manual_seed(0)
    assert_gradients(Tied(), torch.randn(RECORDS, 6), torch.arange(RECORDS) % 3)


class ByName(nn.Module):
    """Calls one layer as a lean layer is not called."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(input=x)))


def test_a_call_by_name_falls_back_to_hooks():
    torch.manual_seed(0)
    assert_gradients(ByName(), torch.randn(RECORDS, 6), torch.arange(RECORDS) % 3)


def test_reduced_precision_falls_back_to_hooks():
    model, (x, y) = network(), batch()
    expected = alone(model, x, y)
    wrapped = hooks_for(model, check(model, x).rows, mode="lean")
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(wrapped(x).float(), y)
    loss.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        found = dense(parameter.grad_sample).float()
        assert (found - gradient).norm() < 0.05 * gradient.norm()


def test_a_layer_outside_of_the_model_is_refused_as_with_hooks():
    model, (x, _) = network(), batch()
    hooks_for(model, check(model, x).rows, mode="lean")
    with pytest.raises(RefusedError, match="ran outside of a forward pass"):
        model[0](x)


def test_a_second_backward_pass_through_one_forward_pass_is_refused():
    model, (x, y) = network(), batch()
    wrapped = hooks_for(model, check(model, x).rows, mode="lean")
    loss = F.cross_entropy(wrapped(x), y)
    loss.backward(retain_graph=True)
    with pytest.raises(RefusedError, match="second backward pass"):
        loss.backward()


def test_evaluation_and_unwatched_passes_are_those_of_the_module():
    model, (x, y) = network(), batch()
    expected = model(x)
    wrapped = hooks_for(model, check(model, x).rows, mode="lean")
    with torch.no_grad():
        assert torch.equal(wrapped(x), expected)
    wrapped.disable_hooks()
    F.cross_entropy(wrapped(x), y).backward()
    assert all(p.grad is not None and p.grad_sample is None for p in model.parameters())


class Scaled(nn.Module):
    """A convolution, a number of its own and a pooling: run again record by record."""

    def __init__(self, pool):
        super().__init__()
        self.convolution, self.pool = nn.Conv2d(2, 5, 3), pool
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.pool(self.scale * self.convolution(x))


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AdaptiveAvgPool2d])
def test_pooling_is_done_otherwise_in_a_step_alone(wrap, kind):
    torch.manual_seed(0)
    pool, first = (kind(2), kind(2)) if kind is nn.MaxPool2d else (kind(2), kind(4))
    model = nn.Sequential(
        Scaled(first),
        nn.ReLU(inplace=True),
        pool,
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(20, 3),
    )
    x = torch.randn(RECORDS, 2, 10, 10)
    y = torch.arange(RECORDS) % 3
    before, expected = model(x), alone(model, x, y)
    hooks = hooks_for(model, check(model, x).rows, mode="lean", wrap_model=wrap)
    assert all(isinstance(m.forward, PoolForward) for m in (pool, model[0].pool))
    output = model(x)
    if kind is nn.MaxPool2d:
        assert torch.equal(output, before)
    torch.testing.assert_close(output, before)
    F.cross_entropy(hooks(x) if wrap else output, y).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(dense(parameter.grad_sample), gradient, rtol=1e-4, atol=1e-6)
    image = torch.randn(5, 4, 4)  # no batch: as it is
    assert torch.equal(pool(image), kind(2)(image))
    hooks.cleanup()
    assert not any("forward" in vars(m) for m in model.modules())
    assert torch.equal(model(x), before)
