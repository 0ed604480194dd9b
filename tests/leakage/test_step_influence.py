import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.errors import InputError
from dpnorm.leakage.step_influence import step_influence
from tests.leakage.row_copies import Mlp

PARTS = ("own", "spill", "total", "largest")


def vectors(count=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    x[-1] *= 10
    return x, torch.arange(count) % 3


def images(count=6):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 2, 6, 6, generator=generator), torch.arange(count) % 3


def network(norm=nn.Identity, *more):
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm(*more), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def by_hand(model, x, y, clip=None):
    def rows(keep):
        found = model.by_rows(x[keep], y[keep])
        if clip is not None:
            found = torch.stack([row * min(1.0, clip / float(row.norm())) for row in found])
        return dict(zip(keep, found, strict=True))

    everyone = list(range(len(x)))
    whole, parts = rows(everyone), []
    for i in everyone:
        left = rows([j for j in everyone if j != i])
        moves = [whole[j] - left[j] for j in left]
        change = sum(whole.values()) - sum(left.values())
        parts.append(
            [
                float(whole[i].norm()),
                float(sum(moves).norm()),
                float(change.norm()),
                max(float(move.norm()) for move in moves),
            ]
        )
    return np.array(parts).T


def test_under_batch_norm_all_parts_equal_leaving_out_by_hand():
    model, (x, y) = Mlp().double(), vectors()
    found = step_influence(model, x, y, clip=0.7)
    for moves, clip in ((found.plain, None), (found.clipped, 0.7)):
        for name, expected in zip(PARTS, by_hand(model, x, y, clip), strict=True):
            np.testing.assert_allclose(getattr(moves, name), expected, rtol=1e-9, atol=1e-12)
    assert (found.plain.spill > 0.01).all()
    np.testing.assert_allclose(found.ratio, found.clipped.total / 0.7)


def test_the_total_is_the_change_of_the_batch_gradient():
    model, (x, y) = Mlp().double(), vectors()
    model.train()

    def gradient(keep):
        loss = F.cross_entropy(model(x[keep]), y[keep], reduction="sum")
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])

    everyone = torch.arange(len(x))
    change = [gradient(everyone) - gradient(everyone[everyone != i]) for i in everyone]
    expected = [float(c.norm()) for c in change]
    for criterion, reduction in (
        (None, "mean"),
        (nn.CrossEntropyLoss(), "mean"),
        (nn.CrossEntropyLoss(reduction="sum"), "sum"),
    ):
        found = step_influence(model, x, y, criterion=criterion, loss_reduction=reduction)
        np.testing.assert_allclose(found.plain.total, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "norm",
    [(nn.Identity,), (nn.GroupNorm, 2, 4), (nn.LayerNorm, [4, 4, 4]), (nn.InstanceNorm2d, 4)],
)
def test_isolated_records_spill_nothing_and_keep_to_the_clipping_norm(norm):
    model, (x, y) = network(*norm).double(), images()
    found = step_influence(model, x.double(), y, clip=0.5)
    for moves in (found.plain, found.clipped):
        assert moves.spill.max() < 1e-12
        assert moves.largest.max() < 1e-12
        np.testing.assert_allclose(moves.total, moves.own)
    assert found.ratio.max() <= 1 + 1e-12
    assert found.plain.own.max() > 0.5


def test_batch_norm_breaks_the_clipping_bound_for_an_outlier():
    model, (x, y) = network(nn.BatchNorm2d, 4), images(24)
    x[-1] *= 30
    assert step_influence(model, x, y, clip=0.1, records=[23]).ratio[0] > 2


def test_modes_are_taken_module_by_module_from_a_model_in_training():
    model, (x, y) = network(nn.BatchNorm2d, 4), images()
    model.train()
    model[1].eval()
    assert step_influence(model, x, y).plain.spill.max() < 1e-6
    model.eval()
    assert step_influence(model, x, y).plain.spill.min() > 1e-3


class Counting(nn.Module):
    """Scales by a buffer that each pass moves, as power iterations do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.body(x) * self.passes


def test_every_pass_starts_from_the_same_buffers():
    model, (x, y) = Counting().double(), vectors()
    assert step_influence(model, x, y).plain.spill.max() < 1e-12
    assert model.passes == 0


def test_chosen_records_have_the_values_of_the_whole():
    model, (x, y) = Mlp().double(), vectors()
    part, whole = step_influence(model, x, y, records=[5, 2]), step_influence(model, x, y)
    for name in PARTS:
        np.testing.assert_allclose(
            getattr(part.plain, name), getattr(whole.plain, name)[[5, 2]], rtol=1e-12
        )


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 3)

    def forward(self, x):
        return F.dropout(self.body(x), 0.5, self.training)


def test_dropout_layers_do_not_draw_and_other_draws_are_refused():
    x, y = vectors()
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.9), nn.ReLU(), nn.Linear(7, 3)).double()
    assert step_influence(model, x, y).plain.spill.max() < 1e-12
    with pytest.raises(InputError, match="draws at random"):
        step_influence(FunctionalDropout().double(), x, y)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_come_back_bit_for_bit(training):
    model, (x, y) = nn.Sequential(Mlp(), nn.Dropout(0.5)).double(), vectors()
    model.train(training)
    model[0].last.train(not training)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    draws = torch.get_rng_state()
    step_influence(model, x, y, clip=1.0)
    with pytest.raises(InputError):
        step_influence(model, x[:2], y[:2])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    kept = zip(model.parameters(), gradients, strict=True)
    assert all(torch.equal(p.grad, gradient) for p, gradient in kept)
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(draws, torch.get_rng_state())


def test_the_summary_sets_outliers_beside_the_rest():
    model, (x, y) = Mlp().double(), vectors()
    found = step_influence(model, x, y, clip=1.0, records=[7, 0, 1], lr=0.5)
    summary = found.summary(np.arange(8) == 7)
    assert summary.outliers.median["total"] == found.clipped.total[0]
    assert summary.rest.median["spill"] == pytest.approx(found.clipped.spill[1:].mean())
    assert summary.rest.maximum["own"] == found.clipped.own[1:].max()
    np.testing.assert_allclose(found.displacement, 0.5 * found.clipped.total / 8)
    for shown in (summary, found):
        assert max(len(line) for line in str(shown).splitlines()) <= 80
        assert json.loads(json.dumps(shown.to_dict()))["batch"] == 8
    top = [7, 0, 1][int(found.clipped.total.argmax())]
    assert f"record {top} moves the step most" in str(found)
    for outlier in (np.zeros(3, bool), np.zeros(8)):
        with pytest.raises(InputError, match=r"bool\[8\]"):
            found.summary(outlier)


def test_bad_input_is_one_clear_error():
    model, (x, y) = Mlp().double(), vectors()
    broken = x.clone()
    broken[2, 1] = torch.inf
    for message, arguments, keywords in [
        ("NaN or infinite in 1 of 8 records, first in record 2", (model, broken, y), {}),
        ("x has 8 records, y has 3", (model, x, y[:3]), {}),
        ("there are 1 records; at least 2", (model, x[:1], y[:1]), {}),
        ("batch of 1 record leaves BatchNorm nothing", (model, x[:2], y[:2]), {}),
        ("cannot run on records of shape", (model, x[:, :3], y), {}),
        ("labels run from 0 to 7", (model, x, torch.arange(8)), {}),
        ("no trainable parameter", (Mlp().double().requires_grad_(False), x, y), {}),
        ("clip is 0", (model, x, y), {"clip": 0.0}),
        ("clip is nan", (model, x, y), {"clip": float("nan")}),
        ("lr is -1", (model, x, y), {"lr": -1.0}),
        ("from 0 to 7", (model, x, y), {"records": [8]}),
        ("from 0 to 7", (model, x, y), {"records": []}),
    ]:
        with pytest.raises(InputError, match=message):
            step_influence(*arguments, **keywords)
    plain = step_influence(model, x, y, records=[0])
    with pytest.raises(InputError, match="without clip"):
        _ = plain.ratio
    with pytest.raises(InputError, match="without lr"):
        _ = plain.displacement
