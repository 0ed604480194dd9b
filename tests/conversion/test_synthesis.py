import copy

import pytest
import torch
from torch import nn

from dpnorm.conversion import synthesis
from dpnorm.conversion.synthesis import moment_distance, record_shape, synthesize
from dpnorm.errors import ConversionError, InputError


def trained(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The net with statistics of smooth records, far from those of noise."""
    net.train()
    for _ in range(40):
        x = torch.randn(64, *shape).cumsum(-1) / 2 + 1
        net(x)
    return net.eval()


def maps() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    return trained(net, (1, 8, 8))


def flat() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8)
    )
    return trained(net, (12,))


@pytest.mark.parametrize(("build", "shape"), [(maps, (1, 8, 8)), (flat, (12,))])
def test_synthesized_records_have_the_running_statistics_and_noise_has_not(build, shape):
    net = build()
    records = synthesize(net, shape, count=64, steps=100)
    assert records.shape == (64, *shape)
    assert moment_distance(net, records) < moment_distance(net, torch.randn(64, *shape)) / 10


def test_the_distance_is_that_of_each_layers_input_by_hand():
    net = flat()
    x = torch.randn(32, 12)
    expected = 0.0
    for index in (1, 4):
        layer, seen = net[index], net[:index](x)
        target = layer.running_var + layer.eps
        ours = torch.distributions.Normal(seen.mean(0), (seen.var(0, False) + layer.eps).sqrt())
        theirs = torch.distributions.Normal(layer.running_mean, target.sqrt())
        expected += torch.distributions.kl_divergence(ours, theirs).mean().item() / 2
    assert moment_distance(net, x) == pytest.approx(expected, rel=1e-4)


def test_the_labels_fall_on_the_classes_in_equal_parts(monkeypatch):
    net = nn.Sequential(flat(), nn.Linear(8, 4))
    monkeypatch.setattr(synthesis, "_LABELS", 10.0)  # so that they outweigh the moments
    records = synthesize(net, count=64, steps=150)
    assert net(records).argmax(1).bincount(minlength=4).min() >= 14


def test_the_same_seed_gives_the_same_records_and_another_seed_others():
    net = maps()
    first, second, other = (
        synthesize(net, (1, 8, 8), count=8, steps=3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_model_and_random_state_stay_as_they_were():
    net = maps().train()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[3].weight.requires_grad_(False)
    before, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    synthesize(net, (1, 8, 8), count=8, steps=3)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in net.modules())
    assert not net[3].weight.requires_grad
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert net[3].weight.grad is None
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_it_works_under_no_grad():
    net = flat()
    with torch.no_grad():
        records = synthesize(net, count=8, steps=3)
    assert not records.requires_grad


def test_flat_records_need_no_shape():
    assert record_shape(nn.Sequential(nn.Flatten(), flat())) == (12,)
    assert synthesize(flat(), count=8, steps=1).shape == (8, 12)


def test_volumes_and_models_that_are_no_classifiers_work():
    net = nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4))
    records = synthesize(trained(net, (2, 5, 5, 5)), (2, 5, 5, 5), count=4, steps=2)
    assert records.shape == (4, 2, 5, 5, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_records_have_the_models_dtype(dtype):
    net = flat().to(dtype)
    records = synthesize(net, count=8, steps=2)
    assert records.dtype == net[0].weight.dtype == dtype
    assert records.isfinite().all()


def test_a_channel_that_never_varies_does_no_harm():
    net = flat()
    net[1].running_var[0] = 0.0
    assert synthesize(net, count=16, steps=20).isfinite().all()


def test_each_step_is_told():
    told: list[tuple[int, int]] = []
    synthesize(flat(), count=4, steps=3, progress=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
    ],
)
def test_without_measured_statistics_the_error_says_what_to_do(net):
    with pytest.raises(ConversionError, match=r"measured.*train it first, or pass public"):
        synthesize(net)


def test_a_layer_that_does_not_run_is_no_source():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.norm.running_mean.fill_(1.0)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ConversionError, match="forward pass"):
        synthesize(Unused())


def test_maps_need_a_shape_and_the_error_names_the_channels():
    with pytest.raises(InputError, match=r"\(1, H, W\)"):
        synthesize(maps())


def test_a_shape_that_the_model_does_not_take_is_named():
    with pytest.raises(InputError, match=r"\(3, 8, 8\)"):
        synthesize(maps(), (3, 8, 8), steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, "count is 1: .* at least 2"),
        ({"steps": 0}, "steps is 0: .* at least 1"),
        ({"shape": ()}, r"is \(\): it must be positive"),
        ({"shape": (1, 0)}, r"is \(1, 0\): it must be positive"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        synthesize(flat(), **change)
