import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.conversion import convert, load
from dpnorm.detection import check
from dpnorm.models import build
from dpnorm.norms import EvoNormS0
from tests.conversion.networks import largest_gap, maps, randomized


def resnet8() -> nn.Module:
    return build("resnet8", in_channels=1, num_classes=10)


def details(conversion) -> dict[str, str]:
    return {change.path: change.detail for change in conversion.changes}


def test_evonorm_stands_for_norm_and_activation_in_a_sequential():
    net = maps()
    conversion = convert(net, to="evonorm")
    kinds = [type(layer) for layer in conversion.model[:6]]
    assert kinds == [nn.Conv2d, EvoNormS0, nn.Identity] * 2
    assert isinstance(net[2], nn.ReLU)
    assert "the ReLU behind it taken out" in details(conversion)["1"]
    assert all("the function is not kept" in text for text in details(conversion).values())


@pytest.mark.parametrize("training", [True, False])
def test_in_a_residual_block_only_the_activation_behind_a_norm_goes(training):
    conversion = convert(resnet8(), to="evonorm")
    block = conversion.model.stage2[0].train(training)
    x = torch.randn(3, 16, 8, 8)
    branch = block.bn2(block.conv2(block.bn1(block.conv1(x))))
    assert torch.equal(block(x), F.relu(branch + block.shortcut(x)))
    assert "the relu behind it taken out" in details(conversion)["stage2.0.bn1"]
    assert "what follows it stays" in details(conversion)["stage2.0.bn2"]
    assert check(conversion.model, torch.randn(4, 1, 8, 8)).verdict == "proven"


def test_an_activation_that_is_used_twice_goes_behind_the_norm_and_stays_behind_the_sum():
    torchvision = pytest.importorskip("torchvision")
    conversion = convert(torchvision.models.resnet18(num_classes=3), to="evonorm")
    block = conversion.model.layer1[0]
    x = torch.randn(2, 64, 8, 8)
    wanted = F.relu(block.bn2(block.conv2(block.bn1(block.conv1(x)))) + x)
    assert torch.equal(block(x), wanted)
    assert isinstance(block.relu, nn.ReLU)
    assert "layer1.0" in conversion.rewritten


class Activated(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.act = nn.BatchNorm1d(32), nn.SiLU()


class Both(Activated):
    def forward(self, x):
        y = self.norm(x)
        return y + self.act(y)


class Branching(Activated):
    def forward(self, x):
        return self.act(self.norm(x)) if x.sum() > 0 else self.norm(x)


class ByMode(Activated):
    def forward(self, x):
        return self.act(self.norm(x)) if self.training else self.norm(x)


@pytest.mark.parametrize("kind", [Both, Branching, ByMode])
def test_an_activation_stays_where_its_input_is_read_elsewhere_or_nothing_is_shown(kind):
    net = kind()
    conversion = convert(net, to="evonorm")
    assert "what follows it stays" in details(conversion)["norm"]
    net.norm = conversion.model.norm
    x = torch.rand(4, 32)
    assert largest_gap(net, conversion.model, x) == 0


def test_a_hooked_activation_stays():
    net = nn.Sequential(nn.BatchNorm1d(32), nn.ReLU())
    net[1].register_forward_hook(lambda module, args, output: output * 2)
    assert isinstance(convert(net, to="evonorm").model[1], nn.ReLU)


def test_only_behind_selected_norms_is_an_activation_taken_out():
    model = convert(maps(), to="evonorm", select=["4"]).model
    assert isinstance(model[2], nn.ReLU)
    assert isinstance(model[5], nn.Identity)


@pytest.mark.parametrize("build_net", [maps, resnet8])
def test_a_loaded_conversion_has_the_same_activations_and_groups(build_net, tmp_path):
    conversion = convert(randomized(build_net()), to="evonorm", groups=4)
    conversion.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", build_net().eval())
    assert loaded.changes == conversion.changes
    assert {change.groups for change in loaded.changes} == {4}
    assert largest_gap(conversion.model, loaded.model, torch.randn(2, 1, 8, 8)) == 0


@pytest.mark.parametrize("init", ["match", "copy", "reset"])
def test_scale_and_shift_are_copied_unless_they_are_reset(init):
    net = randomized(maps())
    layer = convert(net, to="evonorm", init=init).model[1]
    reset = init == "reset"
    assert torch.equal(layer.weight, torch.ones(32) if reset else net[1].weight)
    assert torch.equal(layer.v, torch.ones(32))
