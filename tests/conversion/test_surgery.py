import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from dpnorm.conversion import convert
from dpnorm.errors import ConversionError
from tests.conversion.networks import largest_gap, maps, randomized

SHAPES = {
    "2-D": (nn.BatchNorm1d, (4, 32)),
    "3-D": (nn.BatchNorm1d, (4, 32, 5)),
    "4-D": (nn.BatchNorm2d, (4, 32, 5, 5)),
    "5-D": (nn.BatchNorm3d, (4, 32, 3, 3, 3)),
}


@pytest.mark.parametrize("to", ["group", "layer", "rms", "evonorm", "frozen", "folded", "none"])
@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_every_rank_and_option_converts_and_runs(to, rank, options):
    kind, shape = SHAPES[rank]
    layer = kind(32, momentum=None, **options)
    x = torch.randn(shape)
    layer(x)
    converted = convert(layer, to=to).model
    assert converted(x).shape == shape
    if not options.get("affine", True):
        assert not any(p.requires_grad for p in converted.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "to",
    ["group", "layer", "instance", "rms", "weight-standardized", "evonorm", "frozen", "folded"],
)
def test_dtype_is_kept(dtype, to):
    net = randomized(maps()).to(dtype)
    model = convert(net, to=to).model
    assert {t.dtype for t in model.state_dict().values()} == {dtype}
    assert model(torch.randn(2, 1, 8, 8, dtype=dtype)).dtype == dtype
    assert not any(m.training for m in model.modules())


def test_the_order_of_the_state_dict_is_kept():
    net = maps()
    wanted = [k for k in net.state_dict() if "running" not in k and "num_batches" not in k]
    assert list(convert(net, to="group").model.state_dict()) == wanted


def test_hooks_of_the_replaced_layer_fire_on_the_new_one():
    net, seen = maps(), []
    net[1].register_forward_hook(lambda m, args, out: seen.append(("forward", type(m))))
    net[1].register_forward_pre_hook(lambda m, args: seen.append(("before", type(m))))
    net[1].register_forward_hook(
        lambda m, args, kwargs, out: seen.append(("kwargs", type(m))), with_kwargs=True
    )
    net[1].register_full_backward_hook(lambda m, given, got: seen.append(("backward", type(m))))
    converted = convert(net).model
    converted(torch.randn(2, 1, 8, 8)).sum().backward()
    kinds = ("before", "forward", "kwargs", "backward")
    assert seen == [(name, nn.GroupNorm) for name in kinds]


def test_containers_and_parametrized_parents():
    class Parent(nn.Linear):
        def __init__(self):
            super().__init__(6, 32)
            self.norms = nn.ModuleDict({"one": nn.BatchNorm1d(32)})
            self.more = nn.ModuleList([nn.BatchNorm1d(32)])

        def forward(self, x):
            return self.more[0](self.norms["one"](super().forward(x)))

    net = parametrizations.weight_norm(Parent())
    model = convert(net).model
    assert isinstance(model.norms["one"], nn.GroupNorm)
    assert isinstance(model.more[0], nn.GroupNorm)
    assert nn.utils.parametrize.is_parametrized(model, "weight")
    assert model(torch.randn(3, 6)).shape == (3, 32)


def test_sync_batch_norm_and_initialized_lazy_layers_convert():
    lazy = nn.Sequential(nn.LazyConv2d(32, 3), nn.LazyBatchNorm2d())
    lazy(torch.randn(2, 3, 8, 8))
    assert isinstance(convert(lazy).model[1], nn.GroupNorm)
    assert isinstance(convert(nn.SyncBatchNorm(32)).model, nn.GroupNorm)


class FusedNorm(nn.Module):
    """A fused layer that shares no base class and no name with torch's."""

    def __init__(self, channels, *, absolute):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels))
        self.bias = nn.Parameter(torch.randn(channels))
        self.register_buffer("running_mean", torch.randn(channels))
        self.register_buffer("running_var", torch.rand(channels) + 0.5)
        self.activation, self.activation_param, self.eps = "leaky_relu", 0.2, 1e-4
        self.absolute = absolute

    def forward(self, x):
        weight = self.weight.abs() + self.eps if self.absolute else self.weight
        x = F.batch_norm(
            x, self.running_mean, self.running_var, weight, self.bias, self.training, 0.1, self.eps
        )
        return F.leaky_relu(x, self.activation_param)


@pytest.mark.parametrize("absolute", [False, True])
def test_fused_layers_are_known_by_what_they_hold_and_compute(absolute):
    torch.manual_seed(1)
    layer = FusedNorm(32, absolute=absolute).eval()
    converted = convert(nn.Sequential(layer), to="frozen").model
    x = torch.randn(4, 32, 3, 3)
    assert largest_gap(layer, converted, x) < 1e-4
    assert any(isinstance(m, nn.LeakyReLU) for m in converted.modules())


def test_a_fused_layer_that_cannot_be_told_is_refused():
    class Other(FusedNorm):
        def forward(self, x):
            return super().forward(x).cumsum(1)

    with pytest.raises(ConversionError, match=r"0: .*Other has a forward of its own"):
        convert(nn.Sequential(Other(32, absolute=False)))


def test_frozen_layers_of_other_libraries_are_left_alone():
    torchvision = pytest.importorskip("torchvision")
    timm = pytest.importorskip("timm")

    class Constant(nn.BatchNorm2d):
        def forward(self, x):
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)

    net = nn.Sequential(
        torchvision.ops.FrozenBatchNorm2d(8), timm.layers.FrozenBatchNormAct2d(8), Constant(8)
    )
    conversion = convert(net)
    assert conversion.changes == ()
    assert [type(m) for m in conversion.model] == [type(m) for m in net]
    assert "nothing to exchange" in str(conversion)


def test_timms_kinds_keep_drop_and_activation():
    layers = pytest.importorskip("timm").layers
    fused = layers.BatchNormAct2d(32, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    synced = layers.norm_act.convert_sync_batchnorm(layers.BatchNormAct2d(32))
    for layer in (fused, synced, layers.SplitBatchNorm2d(32, num_splits=2)):
        randomized(layer)
        converted = convert(layer, to="frozen").model
        assert largest_gap(layer, converted, torch.randn(4, 32, 3, 3)) < 1e-5
    tail = list(convert(fused).model)[1:]
    assert [type(m) for m in tail] == [nn.Dropout, nn.SiLU]
    converted = convert(synced).model
    assert isinstance(converted[0], nn.GroupNorm)


@pytest.mark.parametrize("to", ["group", "layer", "rms", "evonorm"])
def test_one_value_a_group_is_never_built_for_flat_records(to):
    net = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    with pytest.raises(ConversionError, match="would hold a single value"):
        convert(net, to=to)


def test_public_inputs_show_the_rank_that_the_class_does_not_tell():
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.BatchNorm1d(1))
    with pytest.raises(ConversionError, match="public_inputs"):
        convert(net)
    assert convert(net, public_inputs=torch.randn(4, 6)).model(torch.randn(2, 6)).shape == (2, 1, 6)


def test_coupling_in_functions_is_an_error_with_checks_finding_where_inputs_are_given():
    class Hand(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x) - self.linear(x).mean(0)

    assert convert(Hand()).changes == ()
    with pytest.raises(ConversionError, match=r"(?s)no BatchNorm layer.*DPN1.*Remedy"):
        convert(Hand(), public_inputs=torch.randn(4, 4))
