import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from dpnorm.detection import sensitivity
from dpnorm.detection.sensitivity import gaussian_epsilon
from dpnorm.errors import InputError

X, Y = torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))


@pytest.mark.parametrize("search", ["outlier", "ascent"])
@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8, affine=True)]
)
def test_an_isolated_model_moves_by_the_bound_at_most(norm, search):
    found = sensitivity(network(norm), X, Y, F.cross_entropy, clip=0.1, search=search)
    assert 0.5 < found.ratio <= 1 + 1e-5
    assert not found.released_state


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_moves_by_many_times_the_bound(affine):
    found = sensitivity(network(nn.BatchNorm2d(8, affine=affine)), X, Y, F.cross_entropy, clip=0.1)
    assert found.ratio > 2  # the bound is 1
    assert found.released_state
    assert found.epsilon(1.0, 1e-5) == math.inf


def test_without_running_statistics_epsilon_is_that_of_the_shift():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    found = sensitivity(network(norm), X, Y, F.cross_entropy, clip=0.1)
    honest = gaussian_epsilon(1 / 4.0, 1e-5)
    assert found.epsilon(4.0, 1e-5) > 2 * honest


def test_a_mismatched_reduction_moves_by_more_than_the_bound():
    def summed(output, target):
        return F.cross_entropy(output, target, reduction="sum")

    model = network(nn.GroupNorm(2, 8))
    right = sensitivity(model, X, Y, summed, clip=1000.0, loss_reduction="sum")
    wrong = sensitivity(model, X, Y, summed, clip=1000.0, loss_reduction="mean")
    assert right.ratio <= 1 + 1e-5
    assert wrong.ratio > 1.5 * right.ratio


def test_ratio_equals_one_record_at_a_time():
    """Against the definition: clipped gradients of single records, summed."""
    model = network(nn.GroupNorm(2, 8)).double()
    x = X.double()

    def clipped_sum(rows):
        total = 0
        for i in rows:
            model.zero_grad()
            F.cross_entropy(model(x[i : i + 1]), Y[i : i + 1]).backward()
            flat = torch.cat([p.grad.flatten() for p in model.parameters()])
            total = total + flat * min(1.0, 0.1 / flat.norm().item())
        return total

    added = (clipped_sum(range(8)) - clipped_sum(range(7))).norm() / 0.1
    assert added <= 1 + 1e-9
    found = sensitivity(model, x[:7], Y[:7], F.cross_entropy, clip=0.1)
    assert found.ratio == pytest.approx(1.0, abs=1e-6)  # every record here is clipped


@pytest.mark.parametrize("seed", range(8))
def test_the_rarest_label_is_tried(seed):
    """A mean over the weights of the labels: only a record of the heavy one moves the others."""
    weight = torch.tensor([1.0, 1.0, 50.0])
    y = torch.tensor([2, 0, 1, 0, 1, 0, 1, 0])
    loss = nn.CrossEntropyLoss(weight=weight)
    assert sensitivity(network(nn.GroupNorm(2, 8)), X, y, loss, clip=1.0, seed=seed).ratio > 1.7


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_gaussian_epsilon_has_the_delta_that_was_asked_for(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert epsilon > 0
    back = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(
        -mu / 2 - epsilon / mu
    )
    assert back == pytest.approx(delta, rel=1e-6)


def test_gaussian_epsilon_equals_dp_accounting():
    from dp_accounting import dp_event, pld

    accountant = pld.PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(dp_event.GaussianDpEvent(1.25))
    assert gaussian_epsilon(1 / 1.25, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"clip": 0}, "clip is 0"), ({"search": "outliers"}, "did you mean 'outlier'")],
)
def test_wrong_arguments_are_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        sensitivity(network(nn.GroupNorm(2, 8)), X, Y, F.cross_entropy, **arguments)


def test_folded_rows_are_refused():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, x):
            return self.linear(x.flatten(0, 1)).view(len(x), -1, 3).mean(1)

    with pytest.raises(InputError, match="DPN503"):
        sensitivity(Folded(), torch.randn(4, 5, 8), Y[:4], F.cross_entropy)
