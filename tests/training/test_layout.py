import copy

import pytest
import torch
from torch import nn

from dpnorm.data import load
from dpnorm.training.layout import channels_last_where_it_runs
from dpnorm.training.networks import build_network


def is_channels_last(model: nn.Module) -> bool:
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def steps(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05)
    for part, labels in zip(x.split(32), y.split(32), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(part), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", ["lenet", "resnet8"])
@pytest.mark.parametrize("variant", ["batch", "group", "none", "evonorm"])
def test_a_network_trains_in_it_to_what_it_trains_to_without(name, variant):
    data = load("digits")
    torch.manual_seed(3)
    plain = build_network(name, variant, data)
    state = torch.get_rng_state()
    changed = channels_last_where_it_runs(copy.deepcopy(plain), data.train.x)
    assert torch.equal(torch.get_rng_state(), state)
    assert is_channels_last(changed)
    before = plain.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in changed.state_dict().items())
    x, y = data.train.x[:128], data.train.y[:128]
    both = [steps(model, x, y)(data.test.x) for model in (plain, changed)]
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-3)


class Viewing(nn.Module):
    """Its forward pass asks for a contiguous layout, as many do."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, x):
        return self.linear(self.conv(x).view(len(x), -1))


class Peeking(Viewing):
    """It reads memory by place, so that another layout would change what it computes."""

    def forward(self, x):
        y = self.conv(x)
        return self.linear(y.as_strided((len(x), 4 * 36), (4 * 36, 1)))


class Broken(Viewing):
    """Its forward pass does not run in any layout; the training says so."""

    def forward(self, x):
        raise KeyError("planted")


@pytest.mark.parametrize("model", [Viewing, Peeking, Broken, lambda: nn.Linear(4, 2)])
def test_a_model_that_needs_its_layout_keeps_it(model):
    torch.manual_seed(0)
    given = model()
    before = {name: p.stride() for name, p in given.named_parameters()}
    shape = (1, 8, 8) if isinstance(given, Viewing) else (4,)
    assert channels_last_where_it_runs(given, torch.randn(6, *shape)) is given
    assert {name: p.stride() for name, p in given.named_parameters()} == before
