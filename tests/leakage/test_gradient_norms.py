import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from dpnorm.errors import InputError
from dpnorm.leakage.gradient_norms import gradient_norms
from dpnorm.leakage.norm_summary import summarize_norms
from tests.leakage.row_copies import Mlp


def images(count=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 6, 6, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


def network(norm=nn.Identity, *more, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        norm(*more),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(64, 3),
    )


def moved_statistics(model):
    for _ in range(3):
        model(torch.randn(8, 2, 6, 6) * 2 + 1)
    return model


def loop_norms(model, x, y):
    """Plain autograd on one record at a time, in evaluation mode."""
    model.eval()
    norms = []
    for record, label in zip(x, y, strict=True):
        loss = F.cross_entropy(model(record[None]), label[None])
        gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
        norms.append(torch.cat([g.flatten() for g in gradients]).norm())
    return torch.stack(norms)


@pytest.mark.parametrize(
    "norm", [(nn.Identity,), (nn.BatchNorm2d, 4), (nn.GroupNorm, 2, 4), (nn.InstanceNorm2d, 4)]
)
def test_eval_norms_equal_a_loop_over_single_records(norm):
    model, (x, y) = moved_statistics(network(*norm, dropout=0.5)), images()
    norms = gradient_norms(model, x, y, mode="eval", batch_size=4)
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms, loop_norms(model, x, y))


@pytest.mark.parametrize("norm", [(nn.Identity,), (nn.GroupNorm, 2, 4)])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_train_norms_of_isolated_records_are_their_own_for_any_batch(norm, batch_size):
    model, (x, y) = network(*norm), images()
    norms = gradient_norms(model, x, y, mode="train", batch_size=batch_size)
    torch.testing.assert_close(norms, loop_norms(model, x, y))


def test_train_norms_under_batch_norm_are_those_of_a_copy_of_the_parameters_for_each_row():
    model, x, y = Mlp(), torch.randn(9, 5), torch.arange(9) % 3
    norms = gradient_norms(model, x, y, mode="train", batch_size=5)
    by_hand = [model.by_rows(x[part], y[part]).norm(dim=1) for part in (range(5), range(5, 9))]
    torch.testing.assert_close(norms, torch.cat(by_hand).detach())
    assert not torch.allclose(norms, gradient_norms(model, x, y, mode="train", batch_size=9))


def test_no_batch_of_one_record_is_left_over_for_batch_norm():
    model, x, y = Mlp(), torch.randn(5, 5), torch.arange(5) % 3
    for batch_size in (2, 3, 4):
        assert gradient_norms(model, x, y, batch_size=batch_size).shape == (5,)


def test_the_reduction_of_the_criterion_does_not_scale_the_norms():
    model, (x, y) = network(), images()
    expected = loop_norms(model, x, y)
    for mode in ("train", "eval"):
        for reduction in ("mean", "sum"):
            criterion = nn.CrossEntropyLoss(reduction=reduction)
            norms = gradient_norms(
                model, x, y, mode=mode, criterion=criterion, loss_reduction=reduction
            )
            torch.testing.assert_close(norms, expected)


def test_frozen_parameters_do_not_count():
    model, (x, y) = network(), images()
    model[0].requires_grad_(False)
    for mode in ("train", "eval"):
        torch.testing.assert_close(gradient_norms(model, x, y, mode=mode), loop_norms(model, x, y))


class Branching(nn.Module):
    """Looks at values, which vmap does not allow."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return self.body(x) * (2.0 if float(x.sum()) > 0 else 1.0)


class Drawing(nn.Module):
    """Draws in evaluation mode too, and by no module."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return F.dropout(self.body(x), 0.5)


def test_a_model_that_vmap_cannot_batch_is_run_record_by_record():
    model, (x, y) = Branching(), images()
    torch.testing.assert_close(gradient_norms(model, x, y, mode="eval"), loop_norms(model, x, y))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_random_draws_come_from_the_seed(mode):
    model, (x, y) = Drawing(), images()
    first = gradient_norms(model, x, y, mode=mode, seed=1)
    torch.rand(3)
    assert torch.equal(first, gradient_norms(model, x, y, mode=mode, seed=1))
    assert not torch.equal(first, gradient_norms(model, x, y, mode=mode, seed=2))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_all_random_states_come_back_bit_for_bit(mode, training):
    model, (x, y) = network(nn.BatchNorm2d, 4, dropout=0.5), images()
    model.train(training)
    model[1].train(not training)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    contents = [g.clone() for g in gradients]
    modes = [module.training for module in model.modules()]
    draws = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    gradient_norms(model, x, y, mode=mode)
    with pytest.raises(InputError):
        gradient_norms(model, x * 1e38, y, mode=mode)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(g, content) for g, content in zip(gradients, contents, strict=True))
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(draws[0], torch.get_rng_state())
    assert draws[1:] == (random.getstate(), str(np.random.get_state()))


def test_a_layer_that_is_kept_in_evaluation_mode_stays_there():
    model, (x, y) = moved_statistics(network(nn.BatchNorm2d, 4)), images()
    model.train()
    model[1].eval()
    torch.testing.assert_close(gradient_norms(model, x, y), loop_norms(model, x, y))


class Elsewhere(nn.Module):
    """Uses a parameter outside of the module that owns it."""

    def __init__(self):
        super().__init__()
        self.owner = nn.Linear(5, 3)

    def forward(self, x):
        return F.linear(x, self.owner.weight)


def test_rows_that_miss_a_parameter_are_refused_and_eval_mode_measures_it():
    model, x, y = Elsewhere(), torch.randn(6, 5), torch.arange(6) % 3
    with pytest.raises(InputError, match=r"do not add up .* mode='eval'"):
        gradient_norms(model, x, y, mode="train")
    model.owner.bias.requires_grad_(False)
    torch.testing.assert_close(gradient_norms(model, x, y, mode="eval"), loop_norms(model, x, y))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bad_input_is_one_clear_error(mode):
    model, (x, y) = network(), images()
    broken = x.clone()
    broken[3, 0, 0, 0] = torch.nan
    frozen = network().requires_grad_(False)
    mismatched = nn.CrossEntropyLoss(reduction="sum")
    for message, arguments, keywords in [
        ("NaN or infinite in 1 of 10 records, first in record 3", (model, broken, y), {}),
        ("x has 10 records, y has 9", (model, x, y[:9]), {}),
        ("there are 0 records", (model, x[:0], y[:0]), {}),
        (r"cannot run on records of shape \(6, 6\)", (model, x[:, 0], y), {}),
        ("cannot run on records", (model, x.double(), y), {}),
        ("x is a list", (model, [1.0], y), {}),
        ("labels run from 0 to 9; the model has 3 outputs", (model, x, torch.arange(10)), {}),
        ("int64 labels", (model, x, y.float()), {}),
        ("no trainable parameter", (frozen, x, y), {}),
        ("unknown mode 'test'", (model, x, y), {"mode": "test"}),
        ("batch_size is 0", (model, x, y), {"batch_size": 0}),
        ("has reduction 'sum', but loss_reduction", (model, x, y), {"criterion": mismatched}),
        ("unknown loss_reduction", (model, x, y), {"loss_reduction": "none"}),
        (r"the criterion gives \(1,\)", (model, x, y), {"criterion": lambda o, y: o.sum(1)}),
        (r"gives \(1, 4, 4, 4\) for one record", (model[0], x, y), {}),
    ]:
        with pytest.raises(InputError, match=message):
            gradient_norms(*arguments, **{"mode": mode, **keywords})
    with torch.no_grad():
        model[0].weight[0] = torch.inf
    with pytest.raises(InputError, match=r"record 0 .* is not finite"):
        gradient_norms(model, x, y, mode=mode)


def test_one_record_under_batch_norm_is_refused_in_training_mode_only():
    model, x, y = Mlp(), torch.randn(1, 5), torch.tensor([1])
    with pytest.raises(InputError, match="batch of 1 record leaves BatchNorm nothing"):
        gradient_norms(model, x, y, mode="train")
    torch.testing.assert_close(gradient_norms(model, x, y, mode="eval"), loop_norms(model, x, y))


def test_the_summary_says_quantiles_and_exact_intervals_of_each_group():
    norms = torch.cat([torch.linspace(2, 4, 11), torch.linspace(0, 2, 101)])
    outlier = np.arange(112) < 11
    summary = summarize_norms(norms, outlier, clip=1.5)
    assert summary.outliers.quantiles[0.5] == pytest.approx(3.0)
    assert summary.rest.mean == pytest.approx(1.0)
    assert summary.ratio.value == pytest.approx(3.0)
    assert summary.ratio.low < 3 < summary.ratio.high
    assert summary.outliers.clipped.value == 1.0
    for group, hits in ((summary.outliers, 11), (summary.rest, 25)):
        exact = stats.binomtest(hits, group.records).proportion_ci(0.95, "exact")
        assert group.clipped.low == pytest.approx(exact.low)
        assert group.clipped.high == pytest.approx(exact.high)
    assert max(len(line) for line in str(summary).splitlines()) <= 80
    assert "share above clip 1.5, rest: 0.248" in str(summary)
    assert json.loads(json.dumps(summary.to_dict()))["rest"]["quantiles"]["0.99"] == pytest.approx(
        1.98
    )


def test_the_interval_of_the_ratio_covers_the_true_ratio():
    # Of 100 intervals at 95% fewer than 88 cover with probability 0.0015 (seeds are fixed)
    covered = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        norms = generator.lognormal(size=300)
        norms[:60] *= 3.0
        ratio = summarize_norms(norms, np.arange(300) < 60).ratio
        covered += ratio.low <= 3.0 <= ratio.high
    assert covered >= 88


def test_a_summary_of_one_group_has_no_ratio_and_bad_norms_are_refused():
    alone = summarize_norms([1.0, 2.0], [False, False])
    assert alone.outliers is None
    assert alone.ratio is None
    assert "clip" not in str(alone).splitlines()[-1]
    assert summarize_norms([1.0, 0.0], [True, False]).ratio is None
    for norms, outlier, clip in [
        ([1.0, np.nan], [True, False], None),
        ([1.0, -1.0], [True, False], None),
        ([1.0, 2.0], [True], None),
        ([1.0, 2.0], [1, 0], None),
        ([], np.zeros(0, bool), None),
        ([1.0], [True], 0.0),
    ]:
        with pytest.raises(InputError):
            summarize_norms(norms, outlier, clip)
