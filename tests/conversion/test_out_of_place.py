import copy

import pytest
import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from torch import nn

from dpnorm.conversion import convert
from tests.conversion.networks import largest_gap, randomized

ACTIVATIONS = [
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Hardsigmoid, nn.Dropout,
]  # fmt: skip


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_inplace_activations_are_set_out_of_place_in_the_copy_only(kind):
    net = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), kind(inplace=True))
    conversion = convert(net)
    assert conversion.model[2].inplace is False
    assert net[2].inplace is True
    assert conversion.rewritten == ("2",)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_torchvisions_resnets_train_through_stock_opacus(name):
    torchvision = pytest.importorskip("torchvision")
    net = getattr(torchvision.models, name)(num_classes=4)
    wrapped = GradSampleModule(convert(net, to="group").model)
    loss = F.cross_entropy(wrapped(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1]))
    loss.backward()
    assert all(len(p.grad_sample) == 2 for p in wrapped.parameters())


def test_a_rewritten_block_is_the_same_block():
    torchvision = pytest.importorskip("torchvision")
    net = randomized(torchvision.models.resnet18(num_classes=4))
    seen = []
    net.layer1[0].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    conversion = convert(net, to="frozen")
    assert "layer1.0" in conversion.rewritten
    x = torch.randn(2, 3, 64, 64)
    for model in (conversion.model, copy.deepcopy(conversion.model)):
        seen.clear()
        assert largest_gap(net, model, x) < 1e-5
        block = model.layer1[0]
        assert seen == [type(net.layer1[0])] * 2
        assert type(block) is type(net.layer1[0])
        assert block.stride == net.layer1[0].stride
        assert block.forward.__self__ is block
        assert torch.allclose(model.train()(x), net(x), atol=1e-5)
        model.eval()
    with_identity = {k for k in net.state_dict() if "bn" not in k and "downsample.1" not in k}
    assert with_identity <= set(conversion.model.state_dict())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(32), nn.Linear(32, 32)


class Written(Residual):
    def forward(self, x):
        out = self.linear(self.norm(x))
        out += x
        out.mul_(2).add_(1)
        return F.relu(out, inplace=True) - out


class ByMode(Residual):
    def forward(self, x):
        out = self.linear(self.norm(x))
        if self.training:
            out += x
        else:
            out *= 3
        return out


class ThroughAView(Residual):
    def forward(self, x):
        out = self.linear(self.norm(x))
        part = out[:, :4]
        out += x
        return out * part.sum(1, keepdim=True)


class OnItsInput(Residual):
    def forward(self, x):
        x += 1
        return self.linear(self.norm(x))


class Untraceable(Residual):
    def forward(self, x):
        out = self.linear(self.norm(x))
        if out.sum() > 0:
            out += x
        return out


class SomeRows(Residual):
    def forward(self, x):
        out = self.linear(self.norm(x))
        out[:, 0] = 7.0
        out += x
        return out


@pytest.mark.parametrize(
    ("kind", "rewritten"),
    [
        (Written, True),
        (ByMode, True),
        (ThroughAView, False),
        (OnItsInput, False),
        (Untraceable, False),
        (SomeRows, False),
    ],
)
def test_rewriting_never_changes_what_a_block_computes(kind, rewritten):
    net = randomized(kind())
    conversion = convert(net, to="frozen")
    assert ("" in conversion.rewritten) == rewritten
    x = torch.randn(5, 32)
    with torch.no_grad():
        assert torch.allclose(conversion.model(x.clone()), net(x.clone()), atol=1e-5)
        net.norm.eval(), net.linear.train()
        net.training = conversion.model.training = True
        assert torch.allclose(conversion.model(x.clone()), net(x.clone()), atol=1e-5)


@pytest.mark.parametrize("kind", [Written, ByMode])
def test_rewritten_blocks_train_through_opacus_as_one_record_at_a_time(kind):
    model = convert(randomized(kind()), to="group").model.train().double()
    x = torch.randn(3, 32, dtype=torch.float64)
    one_by_one = []
    for row in x:
        model.zero_grad()
        model(row[None]).square().sum().backward()
        one_by_one.append(model.linear.weight.grad.clone())
    wrapped = GradSampleModule(model, loss_reduction="sum")
    wrapped(x).square().sum().backward()
    assert torch.allclose(model.linear.weight.grad_sample, torch.stack(one_by_one))


def test_an_activation_whose_overwritten_input_is_read_again_is_left():
    class SkipAfterActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.act = nn.BatchNorm1d(32), nn.LeakyReLU(0.2, inplace=True)

        def forward(self, x):
            y = self.norm(x)
            return torch.cat([y, self.act(y)], 1)

    net = randomized(SkipAfterActivation())
    conversion = convert(net, to="frozen")
    assert conversion.kept_inplace == ("act",)
    assert largest_gap(net, conversion.model, torch.randn(4, 32)) < 1e-5


def test_converting_resnet50_takes_less_than_a_second_and_no_forward_pass():
    import time

    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.resnet50()
    calls = []
    net.conv1.register_forward_pre_hook(lambda module, args: calls.append(1))
    convert(net)  # sources and plans of classes are read once
    times = []
    for _ in range(3):
        start = time.process_time()
        convert(net)
        times.append(time.process_time() - start)
    assert min(times) < 1
    assert calls == []
