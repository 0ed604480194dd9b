import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.detection import Verdict, check
from dpnorm.errors import InputError


def convolutional(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        norm,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


X = torch.randn(6, 2, 5, 5)
Y = torch.arange(6) % 3


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return x - x.mean(0)


class FunctionalBatchNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)


class SubclassedBatchNorm(nn.BatchNorm2d):
    pass


COUPLED = {
    "batch": (nn.BatchNorm2d(8), "DPN101"),
    "batch without affine": (nn.BatchNorm2d(8, affine=False), "DPN101"),
    "batch, untracked": (nn.BatchNorm2d(8, track_running_stats=False), "DPN101"),
    "batch, untracked, in evaluation": (
        nn.BatchNorm2d(8, track_running_stats=False).eval(),
        "DPN101",
    ),
    "a subclass": (SubclassedBatchNorm(8), "DPN101"),
    "functional": (FunctionalBatchNorm(), "DPN102"),
    "instance with tracking": (nn.InstanceNorm2d(8, track_running_stats=True), "DPN201"),
}


@pytest.mark.parametrize("name", COUPLED)
def test_coupling_is_refuted_with_a_witness_at_its_layer(name):
    layer, code = COUPLED[name]
    report = check(convolutional(layer), X)
    assert report.verdict == Verdict.REFUTED
    assert [(f.code, f.path) for f in report.findings] == [(code, "1")]
    assert report.witness > 0.05
    assert not report.ok
    assert report.opacus == "no"


@pytest.mark.parametrize(
    "norm",
    [nn.Identity(), nn.GroupNorm(2, 8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8), nn.Dropout(0.5)],
)
def test_what_is_safe_is_proven(norm):
    report = check(convolutional(norm), X, targets=Y, criterion=F.cross_entropy)
    assert report.verdict == Verdict.PROVEN
    assert report.ok
    assert {layer.verdict for layer in report.layers} == {Verdict.PROVEN}
    assert report.findings == ()
    assert report.opacus == "ready"


def test_every_batch_norm_layer_is_named_behind_others_too():
    layers = [
        layer
        for _ in range(4)
        for layer in (nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    ]
    report = check(nn.Sequential(*layers), X)
    assert [f.path for f in report.findings] == ["1", "4", "7", "10"]


def test_coupling_written_by_hand_is_found_in_the_module_that_does_it():
    report = check(nn.Sequential(nn.Linear(4, 4), Centred()), torch.randn(5, 4))
    assert [(f.code, f.path, f.module) for f in report.findings] == [("DPN102", "1", "Centred")]
    assert report.findings[0].location.startswith("test_check.py:")


def test_a_batch_norm_in_evaluation_is_a_warning():
    report = check(convolutional(nn.BatchNorm2d(8)).eval(), X)
    assert [f.code for f in report.findings] == ["DPN401", "DPN505"]
    assert report.verdict == Verdict.PROVEN
    assert report.opacus == "dpnorm"


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_class_weighted_mean_couples_and_a_weighted_sum_does_not(reduction):
    def criterion(output: Tensor, targets: Tensor) -> Tensor:
        weight = torch.tensor([0.1, 1.0, 5.0])
        return F.cross_entropy(output, targets, weight=weight, reduction=reduction)

    model = convolutional(nn.GroupNorm(2, 8))
    report = check(model, X, targets=Y, criterion=criterion, loss_reduction=reduction)
    expected = ["DPN302"] if reduction == "mean" else []
    assert [f.code for f in report.findings] == expected


def test_the_model_comes_back_as_it_was():
    model = convolutional(nn.BatchNorm2d(8))
    model[5].eval()
    model(X).sum().backward()
    before = copy.deepcopy(model)
    gradients = [p.grad.clone() for p in model.parameters()]
    buffers = {name: (buffer.data_ptr(), buffer.clone()) for name, buffer in model.named_buffers()}
    wrong = torch.randn(4, 3, 5, 5)
    state = torch.get_rng_state()
    check(model, X, targets=Y, criterion=F.cross_entropy)
    with pytest.raises(InputError):
        check(model, wrong)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks for m in model.modules())
    for name, buffer in model.named_buffers():
        assert buffer.data_ptr() == buffers[name][0]
        assert torch.equal(buffer, buffers[name][1])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_the_same_seed_gives_the_same_witness():
    model = convolutional(nn.BatchNorm2d(8))
    assert check(model, X, seed=3).to_dict() == check(model, X, seed=3).to_dict()
    assert check(model, X, seed=3).witness != check(model, X, seed=4).witness


@pytest.mark.parametrize("form", [tuple, dict])
def test_inputs_may_be_a_tuple_or_keywords(form):
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"out": a * b.mean(0)}

    a, b = torch.rand(4, 3), torch.rand(4, 3)
    report = check(Two(), (a, b) if form is tuple else {"a": a, "b": b})
    assert [f.code for f in report.findings] == ["DPN102"]


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 2), torch.rand(1, 3), "hold 1 record"),
        (nn.Linear(3, 2), torch.tensor(1.0), "no dimensions"),
        (nn.Linear(3, 2), "text", "hold no tensor"),
        (nn.Linear(3, 2), torch.rand(4, 5), r"raised RuntimeError on inputs of shape \[\(4, 5\)\]"),
        (nn.LazyLinear(2), torch.rand(4, 5), "lazy layer that has seen no input"),
        (lambda x: x, torch.rand(4, 5), "takes a torch.nn.Module, not function"),
        (nn.Linear(3, 2), (torch.rand(4, 3), torch.rand(5, 3)), r"\[4, 5\] records"),
    ],
)
def test_wrong_input_is_one_clear_error(model, inputs, message):
    with pytest.raises(InputError, match=message):
        check(model, inputs)


def test_a_criterion_needs_targets_and_a_known_reduction():
    with pytest.raises(InputError, match="without targets"):
        check(nn.Linear(3, 2), torch.rand(4, 3), criterion=F.mse_loss)
    with pytest.raises(InputError, match="did you mean 'mean'"):
        check(nn.Linear(3, 2), torch.rand(4, 3), loss_reduction="men")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_give_the_same_verdicts(dtype):
    coupled = convolutional(nn.BatchNorm2d(8)).to(dtype)
    safe = convolutional(nn.GroupNorm(2, 8)).to(dtype)
    assert check(coupled, X.to(dtype)).verdict == Verdict.REFUTED
    assert check(safe, X.to(dtype)).findings == ()


class Bounded(nn.Module):
    """Refuses values that pictures do not have."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if x.abs().max() > 1:
            raise ValueError("pixels lie between -1 and 1")
        return self.layer(x)


@pytest.mark.parametrize("records", [3, 6])
def test_a_model_that_refuses_wild_values_is_judged_with_values_of_its_batch(records):
    pixels = torch.rand(records, 4) * 2 - 1
    assert check(Bounded(nn.BatchNorm1d(4)), pixels).verdict == Verdict.REFUTED
    coupled = nn.Sequential(Bounded(nn.Linear(4, 4)), Centred())
    assert check(coupled, pixels).verdict == Verdict.REFUTED
    assert check(Bounded(nn.Linear(4, 4)), pixels).verdict == Verdict.UNPROVEN  # DPN105


def test_a_model_that_takes_only_its_own_records_is_not_proven():
    own = torch.randn(3, 4)

    class Only(nn.Linear):
        def forward(self, x):
            if not np.array_equal(x.detach().numpy(), own.numpy()):
                raise ValueError("strangers")
            return super().forward(x)

    assert check(Only(4, 4), own).verdict == Verdict.UNPROVEN


def test_a_loss_of_probabilities_is_probed_with_probabilities():
    model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid(), nn.Flatten(0))
    targets = torch.tensor([0.0, 1.0, 1.0])

    def weighted(p, t):
        return F.binary_cross_entropy(p, t, weight=1 / (t.sum() + t))

    x = torch.randn(3, 4)
    assert check(model, x, targets=targets, criterion=weighted).verdict == Verdict.REFUTED
    plain = check(model, x, targets=targets, criterion=F.binary_cross_entropy)
    assert plain.verdict == Verdict.PROVEN
