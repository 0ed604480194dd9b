import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpnorm.conversion import convert
from dpnorm.conversion.distillation import distill, shifted
from dpnorm.conversion.refinement import refine
from dpnorm.errors import ConversionError, InputError
from dpnorm.norms import FrozenBatchNorm


def trained(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A small net that has learned which half of a map is brighter."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        norm(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        norm(16),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        x, y = records(64)
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    return net.eval()


def records(count: int) -> tuple[Tensor, Tensor]:
    """Noise with one brighter quarter (the label), of a brightness that varies by record."""
    y = torch.randint(4, (count,))
    x = torch.randn(count, 1, 8, 8)
    for i in range(count):
        top, left = 4 * (y[i] // 2), 4 * (y[i] % 2)
        x[i, :, top : top + 4, left : left + 4] += 0.5 + 2 * torch.rand(())
    return x, y


def error(original: nn.Module, converted: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return (converted(x) - original(x)).square().mean().item()


def agreement(original: nn.Module, converted: nn.Module, x: Tensor) -> float:
    return (original(x).argmax(1) == converted(x).argmax(1)).double().mean().item()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained()


@pytest.mark.parametrize("variant", ["group", "layer"])
def test_distillation_brings_a_matched_net_nearer_on_records_it_has_not_seen(net, variant):
    public, unseen = records(64)[0], records(512)[0]
    converted = convert(net, to=variant, eps=1e-5).model
    matched = error(net, converted, unseen), agreement(net, converted, unseen)
    distill(net, converted, public, steps=150, lr=1e-3)
    assert error(net, converted, unseen) < matched[0] / 1.5
    assert agreement(net, converted, unseen) > matched[1]


def test_refinement_matches_then_distills(net):
    public, unseen = records(64)[0], records(256)[0]
    plain, matched, refined = (convert(net, to="group") for _ in range(3))
    told: list[tuple[str, int, int]] = []
    paths = [change.path for change in plain.changes]
    refine(net, matched.model, paths, public, match=True)
    refine(
        net,
        refined.model,
        paths,
        public,
        match=True,
        distill_steps=300,
        progress=lambda *step: told.append(step),
    )
    moved = (matched.model[1].weight - plain.model[1].weight).abs().max()
    assert moved > 1e-4
    assert error(net, refined.model, unseen) < error(net, matched.model, unseen)
    assert told[0] == ("matching", 1, 1)
    assert told[1:] == [("distillation", i, 300) for i in range(1, 301)]


def test_the_same_seed_gives_the_same_network_and_another_seed_another(net):
    public = records(16)[0]
    weights = []
    for seed in (1, 1, 2):
        converted = convert(net, to="group").model
        distill(net, converted, public, steps=3, seed=seed)
        weights.append(converted[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_original_and_the_random_state_stay_as_they_were(net):
    original, converted, x = (
        copy.deepcopy(net).train(),
        convert(net, to="group").model,
        records(8)[0],
    )
    before, random_state = copy.deepcopy(original.state_dict()), torch.get_rng_state()
    distill(original, converted, x, steps=3)
    assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in original.modules())
    assert all(p.grad is None and p.requires_grad for p in original.parameters())


def test_flags_modes_gradients_and_statistics_of_the_converted_net_stay(net):
    converted = convert(net, to="frozen").model.train()
    converted[0].weight.requires_grad_(False)
    converted[0].bias.grad = torch.ones(16)
    before = copy.deepcopy(converted.state_dict())
    with torch.no_grad():
        converted[9].bias += 1.0
    distill(net, converted, records(8)[0], steps=3)
    assert isinstance(converted[1], FrozenBatchNorm)
    assert torch.equal(converted[0].weight, before["0.weight"])
    assert not torch.equal(converted[0].bias, before["0.bias"])
    assert torch.equal(converted[1].statistics.running_var, before["1.statistics.running_var"])
    assert [p.requires_grad for p in converted.parameters()] == [False] + [True] * 9
    assert torch.equal(converted[0].bias.grad, torch.ones(16))
    assert converted[9].bias.grad is None
    assert all(module.training for module in converted.modules())


def test_an_identical_net_stays_where_it_is(net):
    converted = convert(net, to="frozen").model
    x = records(64)[0]
    distill(net, converted, x, steps=5)
    assert (converted(x) - net(x)).abs().max() < 0.05


def test_a_failure_leaves_the_converted_net_as_it_was(net):
    converted = convert(net, to="group").model
    before = copy.deepcopy(converted.state_dict())

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(net, converted, records(8)[0], steps=3, progress=stop)
    assert all(torch.equal(before[key], value) for key, value in converted.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_stays_and_the_net_learns(dtype):
    original = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).to(dtype).eval()
    converted = convert(original, to="layer").model
    x = torch.randn(64, 4, dtype=dtype)
    before = error(original, converted, x)
    distill(original, converted, x, steps=100, lr=1e-2)
    assert all(p.dtype == dtype for p in converted.parameters())
    assert error(original, converted, x) < before


def test_inputs_given_by_keyword_are_drawn_together():
    class Sum(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.table, self.norm, self.out = nn.Embedding(5, 4), norm, nn.Linear(4, 2)

        def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
            assert torch.equal(tokens.double(), x[:, 0].round())  # one draw, and no mixing here
            return self.out(self.norm(self.table(tokens) + x))

    original, tokens = Sum(nn.BatchNorm1d(4)).eval(), torch.arange(5).repeat(4)
    x = tokens[:, None].double() + torch.zeros(1, 4)
    converted = convert(original, to="layer").model.double()
    with pytest.raises(AssertionError):  # x is mixed with another record, the tokens are not
        distill(original.double(), converted, {"tokens": tokens, "x": x}, steps=20)
    same = torch.full((8,), 3)
    alike = {"tokens": same, "x": same[:, None].double() + torch.zeros(1, 4)}
    distill(original.double(), converted, alike, steps=2)


def test_shifts_continue_the_border_and_keep_to_an_eighth_of_a_side():
    x = torch.randn(4, 2, 16, 24)
    offsets = torch.tensor([[0, 0], [2, -3], [-3, 3], [3, 0]])
    out = shifted(x, offsets)
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[1, :, 2:, :-3], x[1, :, :-2, 3:])
    assert torch.equal(out[1, :, 0], out[1, :, 2])
    assert torch.equal(out[2, :, :-2, 3:], x[2, :, 2:, :-3])  # 16 // 8 = 2 pixels, not 3
    assert torch.equal(out[3, :, 2:], x[3, :, :-2])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), x


@pytest.mark.parametrize(
    ("original", "converted", "message"),
    [
        (Pair(), Pair(), r"original model returns tuple.*wrap the model"),
        (nn.Linear(4, 4), nn.Linear(4, 3), r"\(32, 3\), the original \(32, 4\)"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(original, converted, message):
    with pytest.raises(ConversionError, match=message):
        distill(original, converted, torch.randn(4, 4), steps=1)


def test_logits_that_are_not_finite_are_refused():
    broken = nn.Linear(4, 4)
    nn.init.constant_(broken.bias, float("inf"))
    with pytest.raises(ConversionError, match="not finite"):
        distill(broken, nn.Linear(4, 4), torch.randn(4, 4), steps=1)


def test_a_net_without_trainable_parameters_is_refused():
    with pytest.raises(InputError, match="requires a gradient"):
        distill(nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False), torch.randn(4, 4))


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        distill(nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(4, 4), **change)
