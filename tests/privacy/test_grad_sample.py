"""The engine's gradients of a record against one backward pass for each record alone."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import Verdict, check
from dpnorm.errors import InputError, RefusedError
from dpnorm.gradients.factors import dense
from dpnorm.norms import (
    EvoNormS0,
    FrozenBatchNorm1d,
    FrozenBatchNorm3d,
    PrivateBatchNorm1d,
    PrivateBatchNorm3d,
    PublicBatchNorm1d,
    PublicBatchNorm3d,
    RecordRMSNorm,
    ScaleNorm,
    WeightStandardizedConv,
)
from dpnorm.privacy import hooks_for
from tests.privacy.cases import CASES, NORMS, RECORDS, Viewed, pictures, sequences

MODES = ("hooks", "functorch", "lean")


def built(name):
    torch.manual_seed(0)
    build, inputs = CASES[name]
    return build(), inputs(), torch.arange(RECORDS) % 3


def alone(model, x, y):
    """The gradients of each record, from a backward pass of its own."""
    each = []
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        each.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    return [
        torch.stack([torch.zeros_like(p) if g[k] is None else g[k] for g in each])
        for k, p in enumerate(model.parameters())
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_each_record_has_the_gradient_that_it_has_alone(name, mode):
    model, x, y = built(name)
    report = check(model, x[:3])
    assert report.verdict == Verdict.PROVEN, report.render("concise")
    expected = alone(model, x, y)
    wrapped = hooks_for(model, report.rows, mode=mode)
    F.cross_entropy(wrapped(x), y).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(dense(parameter.grad_sample), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NORMS)
def test_norms_agree_with_one_record_at_a_time_to_1e_5(name, mode):
    torch.manual_seed(0)
    model, x, y = NORMS[name]().double(), pictures().double(), torch.arange(RECORDS) % 3
    expected = alone(model, x, y)
    wrapped = hooks_for(model, check(model, x[:3]).rows, mode=mode)
    F.cross_entropy(wrapped(x), y).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert (dense(parameter.grad_sample) - gradient).abs().max() < 1e-5


CONVOLUTIONS = {1: nn.Conv1d, 3: nn.Conv3d}
BY_DIMENSION = {
    1: (FrozenBatchNorm1d, PrivateBatchNorm1d, PublicBatchNorm1d),
    3: (FrozenBatchNorm3d, PrivateBatchNorm3d, PublicBatchNorm3d),
}


@pytest.mark.parametrize("mode", [*MODES, "ghost"])
@pytest.mark.parametrize("dimensions", BY_DIMENSION)
@pytest.mark.parametrize(
    "family", ["frozen", "private", "public", "RMS", "scale", "EvoNorm-S0", "standardized weights"]
)
def test_norms_of_other_dimensions_agree_to_1e_5_too(family, dimensions, mode):
    torch.manual_seed(0)
    convolution = CONVOLUTIONS[dimensions](4, 4, 3)
    frozen, private, public = BY_DIMENSION[dimensions]
    layer = {
        "frozen": lambda: frozen(4),
        "private": lambda: private(4, record_share=0.5),
        "public": lambda: public(4, record_share=0.5),
        "RMS": lambda: RecordRMSNorm(4),
        "scale": lambda: ScaleNorm(4),
        "EvoNorm-S0": lambda: EvoNormS0(4, groups=2),
        "standardized weights": lambda: WeightStandardizedConv(CONVOLUTIONS[dimensions](4, 4, 1)),
    }[family]()
    size = 3**dimensions
    model = nn.Sequential(convolution, layer, nn.Tanh(), nn.Flatten(), nn.Linear(4 * size, 3))
    x = torch.randn(RECORDS, 4, *[5] * dimensions, dtype=torch.float64) + 1
    model, y = model.double(), torch.arange(RECORDS) % 3
    expected, report = alone(model, x, y), check(model, x[:3])
    assert report.verdict == Verdict.PROVEN
    options = {"max_grad_norm": 1.0} if mode == "ghost" else {}
    wrapped = hooks_for(model, report.rows, mode=mode, **options)
    F.cross_entropy(wrapped(x), y).backward()
    if mode == "ghost":
        norms = sum(g.reshape(len(g), -1).square().sum(1) for g in expected).sqrt()
        assert (wrapped.get_norm_sample() - norms).abs().max() < 1e-5
        return
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert (dense(parameter.grad_sample) - gradient).abs().max() < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_ghost_norms_are_those_of_the_gradients(name):
    model, x, y = built(name)
    report = check(model, x[:3])
    expected = alone(model, x, y)
    norms = sum(g.reshape(len(g), -1).square().sum(1) for g in expected).sqrt()
    wrapped = hooks_for(model, report.rows, mode="ghost", max_grad_norm=1.0)
    F.cross_entropy(wrapped(x), y).backward()
    torch.testing.assert_close(wrapped.get_norm_sample(), norms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", [*MODES, "ghost"])
def test_a_view_that_is_written_is_refused_and_the_next_pass_goes_on(mode):
    """Its gradient is lost, and without it a norm would be too small."""
    torch.manual_seed(0)
    writes = nn.ReLU(inplace=True)
    model = nn.Sequential(Viewed(), writes, nn.Flatten(), nn.Linear(24, 3))
    x, y = sequences(), torch.arange(RECORDS) % 3
    options = {"max_grad_norm": 1.0} if mode == "ghost" else {}
    report = check(model, x[:3])
    expected = alone(model, x, y)
    wrapped = hooks_for(model, report.rows, mode=mode, **options)
    with pytest.raises(RefusedError, match="0 gave was written in place"):
        F.cross_entropy(wrapped(x), y).backward()
    writes.inplace = False
    model.zero_grad()
    F.cross_entropy(wrapped(x), y).backward()
    if mode == "ghost":
        norms = sum(g.reshape(len(g), -1).square().sum(1) for g in expected).sqrt()
        torch.testing.assert_close(wrapped.get_norm_sample(), norms, rtol=1e-4, atol=1e-6)
        return
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(dense(parameter.grad_sample), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrap", [True, False])
def test_cleaning_up_leaves_the_plain_model(wrap):
    model, x, y = built("in-place residual")
    before = copy.deepcopy(model)
    wrapped = hooks_for(model, check(model, x[:3]).rows, wrap_model=wrap)
    run = wrapped if wrap else model
    F.cross_entropy(run(x), y).backward()
    wrapped.cleanup()
    assert not any("grad_sample" in p.__dict__ for p in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    torch.testing.assert_close(model(x), before(x))


def test_a_second_backward_pass_is_refused_where_a_batch_is_a_step():
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    wrapped.forbid_grad_accumulation()
    F.cross_entropy(wrapped(x), y).backward()
    with pytest.raises(InputError, match="second backward pass"):
        F.cross_entropy(wrapped(x), y).backward()


def test_batches_are_listed_where_they_may_accumulate():
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    for _ in range(2):
        F.cross_entropy(wrapped(x), y).backward()
    assert all([len(g) for g in p.grad_sample] == [5, 5] for p in model.parameters())


def test_a_backward_pass_through_two_forward_passes_is_refused():
    """Their rows may be of different records: a baseline of one row would reach every record."""
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    with pytest.raises(RefusedError, match="two forward passes"):
        F.cross_entropy(wrapped(x) - wrapped(torch.zeros_like(x[:1])), y).backward()
    F.cross_entropy(wrapped(x), y).backward()  # what was left behind does no harm
    for parameter, gradient in zip(model.parameters(), alone_after(model, x, y), strict=True):
        torch.testing.assert_close(dense(parameter.grad_sample), gradient, rtol=1e-4, atol=1e-6)


def alone_after(model, x, y):
    plain = copy.deepcopy(model)
    for module in plain.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return alone(plain, x, y)


def test_a_second_backward_pass_through_one_forward_pass_is_refused():
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    logits = wrapped(x)
    F.cross_entropy(logits, y).backward(retain_graph=True)
    with pytest.raises(RefusedError, match="count each record twice"):
        logits.square().sum().backward()


def test_a_forward_pass_in_between_does_not_change_the_records():
    model, x, y = built("shared and unused")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    loss = F.cross_entropy(wrapped(x), y)
    wrapped(torch.cat([x, x]))
    loss.backward()
    assert {len(p.grad_sample) for p in model.parameters()} == {RECORDS}


def test_a_part_of_the_model_that_runs_alone_is_refused():
    model, x, _ = built("windows record-major")
    hooks_for(model, check(model, x[:3]).rows, wrap_model=False)
    model(x)
    with pytest.raises(RefusedError, match="call the model itself"):
        model.mix(x)


class Counted(nn.Module):
    """Owns a parameter, a counter in a buffer and one in Python, which steer what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.drop = nn.Dropout(0.0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.calls = 0

    def forward(self, x):
        self.steps += 1
        self.calls += 1
        sign = torch.where(self.steps % 2 == 0, 1.0, -1.0) * (-1) ** self.calls
        return x @ torch.diag(self.scale) * sign * torch.linalg.norm(torch.ones(2))


@pytest.mark.parametrize("records", [3, 5])
@pytest.mark.parametrize("mode", ["hooks", "lean", "functorch", "ghost"])
def test_running_again_record_by_record_leaves_no_trace_of_how_many(mode, records):
    model = nn.Sequential(nn.Linear(4, 4), Counted(), nn.Linear(4, 3))
    x, y = torch.randn(records, 4), torch.arange(records) % 3
    wrapped = hooks_for(model, check(model, x).rows, mode=mode)
    for step in range(1, 4):
        model[1].scale.grad_sample = model[0].weight.grad_sample = None
        F.cross_entropy(wrapped(x), y).backward()
        assert int(model[1].steps) == model[1].calls == step
        for parameter in model.parameters():
            parameter.grad_sample = None


def test_a_copy_and_a_check_of_a_hooked_model_leave_it_alone():
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    F.cross_entropy(wrapped(x), y).backward()
    before = [p.grad_sample for p in model.parameters()]
    check(model, x[:3])
    F.cross_entropy(copy.deepcopy(model).train()(x), y).backward()
    assert all(p.grad_sample is g for p, g in zip(model.parameters(), before, strict=True))


def test_an_empty_batch_has_no_gradients_and_is_no_error():
    model, x, y = built("in-place residual")
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        F.cross_entropy(wrapped(x[:0]), y[:0], reduction="sum").backward()
    assert all(p.grad_sample.shape == (0, *p.shape) for p in model.parameters())


def test_rows_that_are_other_than_when_judged_are_refused():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 3)
            self.fold = False

        def forward(self, x):
            rows = x.flatten(0, 1) if self.fold else x[:, 0]
            return self.lin(rows).view(len(x), -1)

    model, x = Sometimes(), sequences()
    wrapped = hooks_for(model, check(model, x[:3]).rows)
    model.fold = True
    with pytest.raises(RefusedError, match="20 rows for 5 records"):
        wrapped(x).sum().backward()


def test_ghost_norms_count_every_use_of_the_forward_pass_that_is_differentiated():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.head, self.twice = nn.Linear(6, 6), nn.Linear(6, 3), True

        def forward(self, x):
            x = torch.tanh(self.lin(x.mean(1)))
            return self.head(self.lin(x) if self.twice else x)

    torch.manual_seed(0)
    model, x, y = Sometimes(), sequences(), torch.arange(RECORDS) % 3
    expected = sum(g.reshape(len(g), -1).square().sum(1) for g in alone(model, x, y)).sqrt()
    wrapped = hooks_for(model, check(model, x[:3]).rows, mode="ghost", max_grad_norm=1.0)
    loss = F.cross_entropy(wrapped(x), y)
    model.twice = False
    wrapped(x)
    loss.backward()
    torch.testing.assert_close(wrapped.get_norm_sample(), expected, rtol=1e-4, atol=1e-6)
