import pytest
import torch
from torch import nn

from dpnorm.conversion import convert, variants
from dpnorm.detection import check
from dpnorm.norms import ChannelAffine, RecordRMSNorm, WeightStandardizedConv
from tests.conversion.networks import largest_gap, maps, randomized

CONVERTED = [name for name, variant in variants().items() if variant.recipe is not None]


def test_every_variant_says_what_it_needs_and_what_it_keeps():
    for variant in variants().values():
        assert variant.preserves in ("exactly", "approximately", "no")
        assert variant.paper
        assert variant.data
        assert variant.safe == (variant.name != "batch")
    assert {n for n, v in variants().items() if v.preserves == "exactly"} >= {"frozen", "folded"}
    assert "groups" in variants()["group"].hyperparameters


@pytest.mark.parametrize("to", CONVERTED)
def test_what_is_called_safe_is_proven(to):
    net = convert(randomized(maps()), to=to).model.train()
    assert check(net, torch.randn(4, 1, 8, 8)).verdict == "proven"


@pytest.mark.parametrize("to", [n for n in CONVERTED if variants()[n].preserves == "exactly"])
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet18", 64), ("mobilenet_v2", 64), ("densenet121", 64), ("googlenet", 64)],
)
def test_exact_variants_keep_torchvisions_networks(to, name, side):
    torchvision = pytest.importorskip("torchvision")
    extra = {"init_weights": False} if name == "googlenet" else {}
    net = randomized(getattr(torchvision.models, name)(num_classes=10, **extra))
    converted = convert(net, to=to).model
    assert largest_gap(net, converted, torch.randn(2, 3, side, side)) < 1e-4


def test_rms_matches_a_record_whose_moments_are_the_populations():
    bn = nn.BatchNorm1d(6).double().eval()
    x = torch.randn(1, 6, 50, dtype=torch.float64) * 3 + 1
    bn.running_mean, bn.running_var = x[0].mean(1), x[0].var(1, correction=0)
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    layer = convert(bn, to="rms").model
    assert isinstance(layer, RecordRMSNorm)
    assert largest_gap(bn, layer, x) < 1e-10


def test_weight_standardization_keeps_what_group_keeps():
    net = randomized(maps())
    group, standardized = convert(net, to="group").model, convert(net, to="weight-standardized")
    assert isinstance(standardized.model[0], WeightStandardizedConv)
    assert isinstance(standardized.model[3], WeightStandardizedConv)
    assert largest_gap(group, standardized.model, torch.randn(4, 1, 8, 8)) < 1e-4


def test_without_matching_weight_standardization_is_the_published_one():
    conv = convert(randomized(maps()), to="weight-standardized", init="reset").model[0]
    assert torch.equal(conv.gain, torch.ones(32))
    assert torch.equal(conv.offset, torch.zeros(32))


LINEAR = [
    (nn.Linear(5, 6), nn.BatchNorm1d(6), (4, 5)),
    (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6), (4, 4, 9)),
    (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (4, 4, 9, 9)),
    (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6, affine=False), (4, 4, 3, 3, 3)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (4, 4, 5, 5)),
    (nn.ConvTranspose1d(4, 6, 3, bias=False), nn.BatchNorm1d(6), (4, 4, 5)),
]


@pytest.mark.parametrize(("linear", "norm", "shape"), LINEAR)
def test_folding_is_exact_for_every_kind_of_linear_layer(linear, norm, shape):
    net = randomized(nn.Sequential(linear, norm).double())
    conversion = convert(net, to="folded")
    assert isinstance(conversion.model[1], nn.Identity)
    assert largest_gap(net, conversion.model, torch.randn(shape, dtype=torch.float64)) < 1e-12


class OutOfOrder(nn.Module):
    """Runs in another order than it registers, and reads the convolution's output twice."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.b, self.norm_a = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.c, self.norm_c = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        c = self.c(x)
        return self.norm_a(self.a(x)) + self.norm_b(self.b(x)) * self.norm_c(c) + c


def test_folding_follows_execution_not_registration():
    net = randomized(OutOfOrder())
    conversion = convert(net, to="folded")
    assert largest_gap(net, conversion.model, torch.randn(2, 3, 5, 5)) < 1e-5
    folded = {c.path: c.detail.split(",")[0] for c in conversion.changes}
    assert folded["norm_a"] == "folded into a"
    assert folded["norm_b"] == "folded into b"
    assert isinstance(conversion.model.norm_c, ChannelAffine)


class Branching(nn.Module):
    """Control flow on the input, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) if x.sum() > 0 else self.norm(y.flip(1))


class Optional(nn.Module):
    """A branch that tracing would take silently."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) if isinstance(x, torch.fx.Proxy) else self.norm(y.flip(1))


@pytest.mark.parametrize("kind", [Branching, Optional])
def test_what_cannot_be_traced_becomes_an_affine_and_stays_exact(kind):
    net = randomized(kind())
    conversion = convert(net, to="folded")
    assert isinstance(conversion.model.norm, ChannelAffine)
    for sign in (1, -1):
        x = sign * torch.rand(2, 3, 5, 5)
        assert largest_gap(net, conversion.model, x) < 1e-5


def test_a_shared_or_hooked_convolution_is_not_folded_into():
    conv = nn.Conv2d(4, 4, 1)
    shared = randomized(nn.Sequential(conv, nn.BatchNorm2d(4), conv, nn.BatchNorm2d(4)))
    hooked = randomized(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    for net in (shared, hooked):
        conversion = convert(net, to="folded")
        assert not any("folded" in change.detail for change in conversion.changes)
        assert largest_gap(net, conversion.model, torch.randn(2, 4, 3, 3)) < 1e-5
