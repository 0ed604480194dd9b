import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.errors import InputError
from dpnorm.leakage.scalar_influence import ScalarBatch
from dpnorm.leakage.step_influence import step_influence


class ExactBatchNorm(nn.Module):
    """BatchNorm without eps, which torch's does not allow."""

    def forward(self, x):
        return (x - x.mean(0)) / x.var(0, unbiased=False).sqrt() if self.training else x


class ExactRecordNorm(nn.Module):
    def forward(self, x):
        return x / x.abs()


class HalfSquare(nn.Module):
    reduction = "sum"

    def forward(self, output, y):
        return 0.5 * (output - y).square().sum()


def module(norm, eps, weight):
    layers = {
        ("none", False): nn.Identity,
        ("none", True): nn.Identity,
        ("batch", False): ExactBatchNorm,
        ("batch", True): lambda: nn.BatchNorm1d(1, eps=eps, affine=False),
        ("record", False): ExactRecordNorm,
        ("record", True): lambda: nn.RMSNorm(1, eps=eps, elementwise_affine=False),
    }
    model = nn.Sequential(layers[norm, eps > 0](), nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[1].weight, weight)
    return model


def numbers(low, high):
    return st.floats(low, high, allow_nan=False, width=64)


@given(
    # one input on each side of 0, so that their deviation is far from it
    ends=st.tuples(numbers(-5, -0.5), numbers(0.5, 5)),
    others=st.lists(numbers(-5, -0.02) | numbers(0.02, 5), max_size=10),
    targets=st.lists(numbers(-3, 3), min_size=12, max_size=12),
    d=numbers(-50, 50),
    target=numbers(-3, 3),
    weight=numbers(-3, 3),
    norm=st.sampled_from(["none", "batch", "record"]),
    eps=st.sampled_from([0.0, 1e-5, 0.3]),
    clip=numbers(0.05, 5),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_closed_form_equals_what_autograd_measures(
    ends, others, targets, d, target, weight, norm, eps, clip
):
    x = np.array([*ends, *others])
    y = np.array(targets[: len(x)])
    assume(abs(x.mean() + d) > 0.01)  # far from 0 / 0, where both sides lose their digits
    batch = ScalarBatch(x, y, target, weight, norm, eps)
    measured = step_influence(
        module(norm, eps, weight),
        torch.tensor(np.append(x, x.mean() + d))[:, None],
        torch.tensor(np.append(y, target))[:, None],
        records=[len(x)],
        criterion=HalfSquare(),
        loss_reduction="sum",
        clip=clip,
    )
    close = {"rtol": 1e-10, "atol": 1e-10}
    for moves, limit in ((measured.plain, None), (measured.clipped, clip)):
        np.testing.assert_allclose(abs(batch.own(d, limit)), moves.own[0], **close)
        np.testing.assert_allclose(abs(batch.spill(d, limit)), moves.spill[0], **close)
        np.testing.assert_allclose(abs(batch.total(d, limit)), moves.total[0], **close)
    moves = batch.neighbour_moves(d)
    np.testing.assert_allclose(abs(moves).max(), measured.plain.largest[0], **close)
    np.testing.assert_allclose(moves.sum(), batch.spill(d), **close)


def standard(N=63, *, seed=0):
    """N records with mean 0, variance 1, targets with mean 0 and covariance 1."""
    generator = np.random.default_rng(seed)
    x, noise = generator.normal(size=(2, N))
    x = (x - x.mean()) / x.std()
    noise = noise - noise.mean()
    return x, x + 0.5 * (noise - x * (x * noise).mean())


@pytest.mark.parametrize("norm", ["batch", "record"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_far_away_own_and_spill_have_their_limits(norm, eps):
    x, y = standard()
    batch = ScalarBatch(x + 2, y + 0.3, -1.5, 0.7, norm, eps)
    own, spill = batch.far()
    assert float(batch.own(1e8)) == pytest.approx(own, rel=1e-5)
    assert float(batch.spill(1e8)) == pytest.approx(spill, rel=1e-5, abs=1e-12)


def test_without_a_norm_the_limit_is_infinite():
    assert ScalarBatch([1.0, 2.0], [0.0, 0.0], 1.0, -2.0, "none").far() == (-np.inf, 0.0)
    assert ScalarBatch([1.0, 2.0], [0.0, 0.0], 1.0, 0.0, "none").far() == (-np.inf, 0.0)
    assert ScalarBatch([1.0, 2.0], [0.0, 0.0], 0.0, 0.0, "none").far() == (0.0, 0.0)


def test_batch_norm_bounds_the_outlier_itself_at_the_root_of_the_others():
    x, y = standard()
    d = np.logspace(-2, 7, 200)
    values = ScalarBatch(x, y, 0.0, 1.0).outlier_value(d)
    assert (np.diff(values) > 0).all()
    assert values[-1] < np.sqrt(63)
    assert values[-1] == pytest.approx(np.sqrt(63))
    np.testing.assert_allclose(values, d * np.sqrt(63 / (64 + d**2)))  # standardized records
    assert (values < d).all()


def test_for_standardized_records_the_weight_leaves_the_total():
    x, y = standard()
    d = np.linspace(-100, 100, 41)
    sigma = np.sqrt(63 * (64 + d**2)) / 64
    for weight in (0.0, 0.5, 1.0, 4.0):
        batch = ScalarBatch(x, y, -1.0, weight)
        expected = weight + batch.outlier_value(d) + 63 * (1 - 1 / sigma)
        np.testing.assert_allclose(batch.total(d), expected, rtol=1e-9)


def test_near_the_batch_the_spill_grows_with_the_square_of_the_distance():
    x, y = standard(100_000)
    for weight in (0.0, 0.5, 1.0):
        spill = ScalarBatch(x, y, 0.0, weight).spill(np.array([3.0, 10.0]))
        np.testing.assert_allclose(
            spill, (0.5 - weight) * (np.array([3.0, 10.0]) ** 2 - 1), rtol=0.01, atol=0.05
        )


def test_amplification_holds_for_a_small_weight_and_reverses_for_a_large_one():
    x, y = standard()
    totals = {
        (norm, weight): abs(ScalarBatch(x, y, 1.0, weight, norm).total(np.array([4.0, 8.0, 1e4])))
        for norm in ("none", "batch")
        for weight in (0.0, 1.0)
    }
    early = totals["batch", 0.0] > totals["none", 0.0]
    assert early.tolist() == [False, True, False]  # |-y_out d + c d^2 / 2|: from d = 4 |y_out / c|
    assert (totals["batch", 1.0] < totals["none", 1.0]).all()


def test_clipped_the_total_keeps_to_the_bound_without_batch_norm_and_breaks_it_with_it():
    x, y = standard()
    d = np.linspace(-100, 100, 401)
    for norm in ("none", "record"):
        assert abs(ScalarBatch(x, y, 1.0, 0.0, norm).total(d, clip=0.1)).max() <= 0.1
    totals = abs(ScalarBatch(x, y, 1.0, 0.0).total(d, clip=0.1)) / 0.1
    assert 10 < totals.max() <= 1 + 2 * 63


def test_bad_numbers_are_refused():
    for arguments, keywords in [
        (([1.0], [1.0, 2.0], 0.0, 0.0), {}),
        (([], [], 0.0, 0.0), {}),
        (([1.0, np.nan], [0.0, 0.0], 0.0, 0.0), {}),
        (([1.0, 2.0], [0.0, 0.0], 0.0, np.inf), {}),
        (([1.0, 2.0], [0.0, 0.0], 0.0, 0.0), {"eps": -1.0}),
        (([1.0, 2.0], [0.0, 0.0], 0.0, 0.0), {"norm": "layer"}),
        (([1.0, 1.0], [0.0, 0.0], 0.0, 0.0), {}),
    ]:
        with pytest.raises(InputError):
            ScalarBatch(*arguments, **keywords)
    with pytest.raises(InputError, match="clip is 0"):
        ScalarBatch([1.0, 2.0], [0.0, 0.0], 0.0, 0.0).own(1.0, clip=0.0)
