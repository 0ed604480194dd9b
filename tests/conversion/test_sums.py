import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.conversion import convert, load
from dpnorm.detection import check
from dpnorm.errors import ConversionError
from dpnorm.models import build
from tests.conversion.networks import largest_gap, randomized


def resnet8() -> nn.Module:
    return build("resnet8", in_channels=1, num_classes=10)


def added(conversion) -> list[str]:
    return [change.path for change in conversion.changes if not change.before]


def test_scale_adds_one_norm_behind_each_residual_sum_and_is_proven():
    conversion = convert(resnet8(), to="scale")
    assert added(conversion) == [f"stage{i}.0.norm_after_sum" for i in (1, 2, 3)]
    assert len(conversion.changes) == 9 + 3
    assert conversion.model.stage2[0].norm_after_sum.num_channels == 32
    assert check(conversion.model, torch.randn(4, 1, 8, 8)).verdict == "proven"


@pytest.mark.parametrize("training", [True, False])
def test_a_block_computes_what_is_written_by_hand(training):
    block = convert(randomized(resnet8()), to="scale").model.stage2[0].train(training)
    nn.init.normal_(block.norm_after_sum.weight)
    x = torch.randn(3, 16, 8, 8)
    branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    wanted = F.relu(block.norm_after_sum(branch + block.shortcut(x)))
    assert torch.equal(block(x), wanted)
    assert torch.equal(copy.deepcopy(block)(x), wanted)


@pytest.mark.parametrize(
    ("name", "sums"), [("resnet18", 8), ("mobilenet_v2", 10), ("regnet_y_400mf", 16)]
)
def test_torchvisions_networks_get_one_norm_a_residual_block(name, sums):
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.get_model(name, weights=None, num_classes=3)
    conversion = convert(net, to="scale")
    assert len(added(conversion)) == sums
    assert conversion.model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def test_in_place_sums_work_out_of_place_behind_the_norm():
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.resnet18(num_classes=3)
    conversion = convert(net, to="scale")
    assert {"layer1.0", "layer4.1"} <= set(conversion.rewritten)
    assert set(convert(net, to="group").rewritten) == set(conversion.rewritten)


def test_a_trained_network_without_the_added_norms_is_group():
    net = randomized(resnet8())
    scale, group = convert(net, to="scale").model, convert(net, to="group").model
    for block in (scale.stage1[0], scale.stage2[0], scale.stage3[0]):
        block.norm_after_sum = nn.Identity()
    assert largest_gap(scale, group, torch.randn(4, 1, 8, 8)) == 0


def test_groups_eps_dtype_and_selection_hold_for_the_added_norms():
    conversion = convert(resnet8().double().eval(), to="scale", groups=4, eps=1e-3)
    norm = conversion.model.stage1[0].norm_after_sum
    assert (norm.num_groups, norm.eps, norm.training) == (4, 1e-3, False)
    assert norm.weight.dtype == torch.float64
    chosen = convert(resnet8(), to="scale", select=["stage2.*"])
    assert added(chosen) == ["stage2.0.norm_after_sum"]
    assert isinstance(chosen.model.bn, nn.BatchNorm2d)


def test_a_loaded_conversion_has_the_added_norms(tmp_path):
    conversion = convert(randomized(resnet8()), to="scale", groups=2, select=["stage[12].*"])
    nn.init.normal_(conversion.model.stage1[0].norm_after_sum.weight)
    conversion.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", resnet8().eval())
    assert loaded.changes == conversion.changes
    assert largest_gap(conversion.model, loaded.model, torch.randn(2, 1, 8, 8)) == 0


def test_public_inputs_set_the_exchanged_norms_and_leave_the_added_ones():
    conversion = convert(randomized(resnet8()), to="scale", public_inputs=torch.randn(8, 1, 8, 8))
    norm = conversion.model.stage1[0].norm_after_sum
    assert torch.equal(norm.weight, torch.ones(16))
    assert not torch.equal(conversion.model.stage1[0].bn2.weight, torch.ones(16))


def test_the_diff_tells_added_norms_from_exchanged_ones():
    text = str(convert(resnet8(), to="scale"))
    assert "@@ stage1.0.norm_after_sum @@\n+ GroupNorm(1, 16)" in text
    assert text.splitlines()[-1] == "# 9 layers exchanged, 3 added"


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(32), nn.Linear(32, 32)
        self.shift = nn.Parameter(torch.zeros(32))

    def forward(self, x):
        a = self.linear(x) + self.shift + 1
        return self.norm(x + F.relu(a) + 0.5 * x)


def test_only_the_last_of_a_chain_of_sums_and_no_parameter_is_followed_by_a_norm():
    model = convert(Sum(), to="scale").model.double()
    assert not hasattr(model, "norm_after_sum_1")
    x = torch.randn(5, 32, dtype=torch.float64)
    total = x + F.relu(model.linear(x) + model.shift + 1) + 0.5 * x
    assert torch.allclose(model(x), model.norm(model.norm_after_sum(total)))


class Twice(Sum):
    def forward(self, x):
        x = x + self.linear(self.norm(x))
        return x + self.linear(self.norm(x))


def test_each_of_several_sums_has_a_norm_of_its_own():
    model = convert(Twice(), to="scale").model
    model.norm_after_sum.weight.data.fill_(2.0)
    x = torch.randn(5, 32)
    y = model.norm_after_sum(x + model.linear(model.norm(x)))
    wanted = model.norm_after_sum_1(y + model.linear(model.norm(y)))
    assert torch.allclose(model(x), wanted, atol=1e-6)


class Branching(Sum):
    def forward(self, x):
        return x + self.norm(x) if x.sum() > 0 else x


class ByMode(Sum):
    def forward(self, x):
        return x + self.norm(x) if self.training else self.norm(x)


class Unknown(Sum):
    def forward(self, x):
        return self.norm(x).roll(1, 1) + x.roll(2, 1)


class Overwriting(Sum):
    def forward(self, x):
        out = self.norm(x)
        part = out[:, :4]
        out += x
        return out * part.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Branching, "torch.fx cannot follow its forward"),
        (ByMode, "other values in training than in evaluation"),
        (Unknown, "how many channels its sum has cannot be told"),
        (Overwriting, "writes over a value"),
    ],
)
def test_what_is_not_seen_for_certain_is_refused_by_name(kind, message):
    net = nn.Sequential(nn.Linear(32, 32), kind())
    with pytest.raises(ConversionError, match=rf"^1 \(.*{kind.__name__}\): .*{message}.*'group'"):
        convert(net, to="scale")


def test_a_network_without_sums_becomes_what_group_makes_of_it():
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16))
    conversion = convert(net, to="scale")
    assert "no sum to normalize" in conversion.changes[0].detail
    assert isinstance(conversion.model[1], nn.GroupNorm)
