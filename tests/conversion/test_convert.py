import copy

import pytest
import torch
from torch import nn

from dpnorm.conversion import convert, variants
from dpnorm.errors import ConversionError, InputError


def trained(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The net with running statistics and affine parameters that are not the initial ones."""
    net.train()
    for _ in range(30):
        net(torch.randn(16, *shape) * 2 + 1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


def maps(width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 48, 3),
        nn.BatchNorm2d(48, eps=1e-3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def test_the_original_is_never_touched():
    net = trained(maps(), (1, 8, 8))
    before = copy.deepcopy(net.state_dict())
    text = str(net)
    for name in variants():
        convert(net, to=name, public_inputs=torch.randn(8, 1, 8, 8))
    assert str(net) == text
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("public", [False, True])
def test_frozen_keeps_the_function_exactly(public):
    net = trained(maps(), (1, 8, 8))
    inputs = torch.randn(32, 1, 8, 8) if public else None
    converted = convert(net, to="frozen", public_inputs=inputs).model
    x = torch.randn(16, 1, 8, 8) * 2
    assert torch.allclose(converted(x), net(x), atol=1e-5)
    assert torch.allclose(converted.train()(x), net(x), atol=1e-5)


def test_frozen_statistics_come_from_the_public_records():
    net = trained(maps(), (1, 8, 8))
    x = torch.randn(32, 1, 8, 8)
    layer = convert(net, to="frozen", public_inputs=x).model[1]
    seen = net[0](x)
    assert torch.allclose(layer.statistics.running_mean, seen.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(
        layer.statistics.running_var, seen.var((0, 2, 3), correction=0), atol=1e-6
    )


@pytest.mark.parametrize("variant", ["group", "layer", "instance"])
def test_matching_on_public_records_gives_their_output_moments(variant):
    net = trained(maps(), (1, 8, 8))
    x = torch.randn(64, 1, 8, 8) * 2 + 1
    converted = convert(net, to=variant, public_inputs=x).model
    for depth in (2, 5):
        wanted, found = net[:depth](x), converted[:depth](x)
        if depth == 2:  # deeper, the inputs differ record by record
            assert torch.allclose(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-4)
        assert torch.allclose(found.std((0, 2, 3)), wanted.std((0, 2, 3)), rtol=0.05)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(8, 1), (16, 1), (24, 1), (32, 2), (40, 2), (48, 3), (64, 4), (17, 1), (100, 5)],
)
def test_sixteen_channels_a_group_by_default_and_a_divisor_always(channels, groups):
    layer = convert(nn.BatchNorm2d(channels), to="group").model
    assert isinstance(layer, nn.GroupNorm)
    assert (layer.num_groups, layer.num_channels) == (groups, channels)


def test_groups_may_be_a_number_a_function_or_a_dict():
    net = maps()
    assert convert(net, groups=4).model[1].num_groups == 4
    assert convert(net, groups=lambda C: C // 8).model[4].num_groups == 6
    by_path = convert(net, groups={"1": 8}).model
    assert (by_path[1].num_groups, by_path[4].num_groups) == (8, 3)
    with pytest.raises(ConversionError, match="4: 32 groups do not divide its 48 channels"):
        convert(net, groups=32)


@pytest.mark.parametrize("init", ["match", "copy", "reset"])
def test_initial_scale_and_shift(init):
    net = trained(maps(), (1, 8, 8))
    old, new = net[1], convert(net, init=init).model[1]
    if init == "reset":
        assert torch.equal(new.weight, torch.ones(32))
    elif init == "copy":
        assert torch.equal(new.weight, old.weight)
        assert torch.equal(new.bias, old.bias)
    else:
        assert not torch.allclose(new.weight, old.weight, atol=1e-2)


def test_statistics_that_were_never_measured_are_not_matched():
    net = maps()
    nn.init.constant_(net[1].weight, 2.0)
    conversion = convert(net, init="match")
    assert torch.equal(conversion.model[1].weight, torch.full((32,), 2.0))
    assert "no running statistics" in conversion.changes[0].detail


def test_dtype_training_mode_and_requires_grad_are_kept():
    net = maps().double()
    net[1].weight.requires_grad_(False)
    net[4].eval()
    for variant in ("group", "layer", "instance", "frozen"):
        model = convert(net, to=variant).model
        assert {p.dtype for p in model.parameters()} == {torch.float64}
        grads = {name.rpartition(".")[2]: p for name, p in model[1].named_parameters()}
        assert not grads["weight"].requires_grad
        assert grads["bias"].requires_grad
        assert model[1].training
        assert not model[4].training


def test_a_layer_without_affine_gets_a_frozen_one():
    layer = convert(nn.BatchNorm2d(32, affine=False), to="group").model
    assert not any(p.requires_grad for p in layer.parameters())


def test_a_shared_layer_is_replaced_once_and_stays_shared():
    norm = nn.BatchNorm2d(4)
    net = nn.ModuleDict({"a": nn.Sequential(norm), "b": norm})
    conversion = convert(net, to="group")
    assert len(conversion.changes) == 1
    assert conversion.model["b"] is conversion.model["a"][0]
    assert isinstance(conversion.model["b"], nn.GroupNorm)


def test_records_of_one_dimension():
    net = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    x = torch.randn(5, 6)
    assert isinstance(convert(net, to="layer").model[1], nn.LayerNorm)
    assert convert(net, to="layer").model(x).shape == (5, 2)
    assert convert(net, to="group").model(x).shape == (5, 2)
    with pytest.raises(ConversionError, match=r"1 normalizes records of shape \(32,\)"):
        convert(net, to="instance")
    with pytest.raises(ConversionError, match="hold a single value"):
        convert(net, to="group", groups=32)


def test_select_takes_patterns_or_a_function():
    net = maps()
    assert [c.path for c in convert(net, select=["4"]).changes] == ["4"]
    by_width = convert(net, select=lambda path, module: module.num_features == 32)
    assert [c.path for c in by_width.changes] == ["1"]


def test_a_subclass_with_a_forward_of_its_own_is_refused():
    class Odd(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) ** 2

    with pytest.raises(ConversionError, match=r"1: .*Odd has a forward of its own"):
        convert(nn.Sequential(nn.Conv2d(1, 4, 1), Odd(4)))


def test_timm_fused_activations_are_kept():
    timm = pytest.importorskip("timm")
    layer = timm.layers.BatchNormAct2d(32)
    x = torch.randn(8, 32, 4, 4)
    layer.train()
    for _ in range(20):
        layer(x * 2 + 1)
    layer.eval()
    converted = convert(layer, to="frozen").model
    assert torch.allclose(converted(x), layer(x), atol=1e-5)
    assert converted(x).min() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "grup"}, "unknown variant 'grup': .* did you mean 'group'"),
        ({"init": "mach"}, "did you mean 'match'"),
        ({"public_inputs": torch.randn(1, 1, 8, 8)}, "hold 1 record"),
        ({"select": 3}, "select"),
    ],
)
def test_wrong_arguments_are_one_clear_error(arguments, message):
    with pytest.raises((InputError, ConversionError), match=message):
        convert(maps(), **arguments)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_scripted_and_lazy_models_are_refused():
    scripted = torch.jit.script(maps())
    with pytest.raises(ConversionError, match="scripted"):
        convert(scripted)
    with pytest.raises(ConversionError, match="lazy layer"):
        convert(nn.Sequential(nn.LazyBatchNorm2d()))


def test_save_writes_weights_and_changes(tmp_path):
    import json

    from safetensors.torch import load_file

    conversion = convert(trained(maps(), (1, 8, 8)))
    conversion.save(tmp_path / "model.safetensors")
    weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(v, weights[k]) for k, v in conversion.model.state_dict().items())
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert [c["path"] for c in manifest["changes"]] == ["1", "4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        conversion.save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="folder does not exist"):
        conversion.save(tmp_path / "no" / "model.safetensors")
