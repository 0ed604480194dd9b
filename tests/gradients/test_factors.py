"""Gradients that are kept as factors: norms that are never too small, and sums."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.errors import RefusedError
from dpnorm.gradients.factors import (
    Outer,
    OuterSum,
    dense,
    joined,
    row_norms,
    weighted_sum,
    without,
)
from dpnorm.gradients.lean import convolution, lean_layer
from dpnorm.gradients.lean.convolution import Convolved
from dpnorm.gradients.lean.embedding import Embedded

EXACT = {"rtol": 1e-10, "atol": 1e-12}
MOST = 1.001  # times the norm: how far a norm in single precision may be raised, without cancelling


def convolved(records=3, channels=4, size=6, out=5, dtype=torch.float32, **options):
    layer = lean_layer(nn.Conv2d(channels, out, 3, padding=1, **options).to(dtype))
    x = torch.randn(records, channels, size, size, dtype=dtype)
    slopes = torch.randn_like(layer.forward(x, layer.parameters, ())[0])
    return Convolved(slopes, x, layer, layer.module.weight.shape)


KINDS = {
    "outer": lambda: Outer(torch.randn(3, 2), torch.randn(3, 4)),
    "sum": lambda: OuterSum(torch.randn(3, 2, 9), torch.randn(3, 2, 8)),
    "sum, many rows": lambda: OuterSum(torch.randn(3, 7, 2), torch.randn(3, 7, 4)),
    "convolved": convolved,
    "embedded": lambda: Embedded(torch.randn(3, 6, 4), torch.randint(0, 3, (3, 6)), 5),
}


def taken(place, name):
    """Watches whether a function is called."""
    return mock.patch.object(place, name, autospec=True, side_effect=getattr(place, name))


def exact_norms(factors):
    """In double precision, of the gradients themselves."""
    inputs = factors.inputs.double() if factors.inputs.is_floating_point() else factors.inputs
    return factors.of(factors.slopes.double(), inputs).dense().flatten(1).norm(dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_joined_masked_and_added_up_as_what_they_stand_for(kind):
    torch.manual_seed(0)
    first, second = KINDS[kind](), KINDS[kind]()
    if kind == "convolved":
        second = first.of(second.slopes, second.inputs)
    both = joined([first, second])
    assert type(both) is type(first)
    assert len(both) == 6
    torch.testing.assert_close(dense(both), torch.cat([dense(first), dense(second)]))
    torch.testing.assert_close(joined([first, dense(second)]), dense(both))
    weights = torch.rand(6)
    total = (weights @ dense(both).flatten(1)).view(dense(both).shape[1:])
    torch.testing.assert_close(weighted_sum(both, weights, torch.float32), total)
    slopes = first.slopes.clone()
    slopes[1].view(-1)[0] = float("nan")
    broken = first.of(slopes, first.inputs)
    usable = row_norms(broken).isfinite()
    assert usable.tolist() == [True, False, True]
    kept = weighted_sum(without(broken, usable), torch.ones(3), torch.float32)
    torch.testing.assert_close(kept, dense(first)[0] + dense(first)[2])


@pytest.mark.parametrize("kind", KINDS)
def test_no_record_has_no_norm(kind):
    factors = KINDS[kind]()
    nobody = factors.of(factors.slopes[:0], factors.inputs[:0])
    assert row_norms(nobody).shape == (0,)
    total = weighted_sum(nobody, torch.ones(0), torch.float32)
    assert total.shape == dense(factors).shape[1:]
    assert not total.any()


def test_what_two_layers_yield_is_not_joined_as_factors():
    first, second = convolved(), convolved(out=5)
    assert isinstance(joined([first, second]), torch.Tensor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["slopes", "inputs"])
def test_a_factor_that_is_overwritten_is_refused(kind, which):
    """The batch that comes next may be written into the tensor of the last one."""
    factors = KINDS[kind]()
    getattr(factors, which).zero_()
    for ask in (row_norms, dense, lambda f: weighted_sum(f, torch.ones(3), torch.float32)):
        with pytest.raises(RefusedError, match="written in place"):
            ask(factors)


@settings(max_examples=150)
@given(
    st.sampled_from(["sum", "convolved", "embedded"]),
    st.integers(0, 10**6),
    st.sampled_from([1.0, 1e-2, 1e-4, 1e-6, 0.0]),
    st.sampled_from([-30, -20, -12, 0, 12, 18]),
    st.sampled_from([-30, -20, -12, 0, 12, 18]),
)
def test_a_norm_from_pairs_is_never_too_small(kind, seed, left, slopes, inputs):
    """Not where the rows of a record cancel nearly, nor where one factor is tiny, one huge."""
    torch.manual_seed(seed)
    factors = KINDS[kind]()
    ups = factors.slopes
    if kind == "convolved":  # constant inputs, and slopes of both signs that sum up to nearly 0
        given = torch.ones_like(factors.inputs) + left * factors.inputs
        axes = (2, 3)
    else:
        given = factors.inputs
        if kind == "sum":
            given = torch.ones_like(given) + left * given
        axes = (1,)
    ups = ups - (1 - left) * ups.mean(axes, keepdim=True)
    ups = ups * 10.0**slopes
    if given.is_floating_point():
        given = given * 10.0**inputs
    factors = factors.of(ups, given)
    found, exact = row_norms(factors).double(), exact_norms(factors)
    assert bool((found >= exact * (1 - 1e-6)).all()) or not bool(found.isfinite().all())
    sensible = abs(slopes) < 15 and abs(inputs) < 15
    if left == 1.0 and sensible and kind != "embedded":
        assert bool((found <= exact * MOST + 1e-14).all())  # or what vanishes


@pytest.mark.parametrize("kind", ["sum", "convolved"])
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e25])
def test_a_tiny_factor_beside_a_huge_one_is_found_where_it_is_found_for_gradients(kind, size):
    torch.manual_seed(0)
    factors = KINDS[kind]()
    factors = factors.of(factors.slopes * size, factors.inputs / size)
    found, exact = row_norms(factors).double(), exact_norms(factors)
    assert bool((found >= exact * (1 - 1e-6)).all())
    if 1e-16 < size < 1e16 or size > 1e20:
        assert bool((found <= exact * 1.1).all())


@pytest.mark.parametrize("way", ["convolution", "product"])
@settings(max_examples=100)
@given(st.data())
def test_norms_and_sums_of_convolutions_are_exact(way, data):
    """Sums of records by a convolution of the batch, and by a matrix product, whatever pays."""
    dimensions = data.draw(st.sampled_from([1, 2, 3]))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(dimensions)]
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 4)),
        kernel,
        stride=[data.draw(st.integers(1, 2)) for _ in range(dimensions)],
        padding=[data.draw(st.integers(0, 2)) for _ in range(dimensions)],
        dilation=[data.draw(st.integers(1, 2)) for _ in range(dimensions)],
    ).double()
    layer = lean_layer(module)
    records = data.draw(st.integers(1, 5))
    x = torch.randn(records, module.in_channels, *[7] * dimensions, dtype=torch.float64)
    output = module(x)
    slopes = torch.randn_like(output)
    found = Convolved(slopes, x, layer, module.weight.shape)
    alone = torch.stack(
        [
            torch.autograd.grad((module(x[i : i + 1]) * slopes[i]).sum(), module.weight)[0]
            for i in range(records)
        ]
    )
    torch.testing.assert_close(dense(found), alone, **EXACT)
    torch.testing.assert_close(row_norms(found), alone.flatten(1).norm(dim=1), **EXACT)
    weights = torch.rand(records, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch, taken(convolution, "product") as product:
        patch.setattr(convolution, "MANY_CHANNELS", 1e-9 if way == "product" else math.inf)
        patch.setattr(convolution, "MANY_WEIGHTS", 0)
        total = weighted_sum(found, weights, torch.float64)
    assert product.called == (way == "product")
    torch.testing.assert_close(total.flatten(), weights @ alone.flatten(1), **EXACT)


@pytest.mark.parametrize("laid", ["rows", "columns"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 2), (512, 64, 700), (40, 1, 300), (1, 96, 8)])
def test_products_are_those_of_double_precision(sizes, laid):
    rows, inner, columns = sizes
    first, second = torch.randn(rows, inner), torch.randn(columns, inner)
    if laid == "columns":
        first, second = first.T.contiguous().T, second.T.contiguous().T
    found = convolution.product(first, second)
    assert found.shape == (rows, columns)
    assert found.is_contiguous()
    # each term is rounded, and each sum: inner + 1 roundings of the terms' absolute values
    allowed = (inner + 1) * torch.finfo(torch.float32).eps * (first.abs() @ second.abs().T).double()
    assert bool(((found - first.double() @ second.double().T).abs() <= allowed).all())


def test_sums_of_few_positions_are_matrix_products():
    """Two records of 2x2 positions and 64 filters of 1,026 weights each; not nine records."""
    for records, expected in ((2, True), (9, False)):
        found = convolved(records, channels=114, size=2, out=64)
        weights = torch.rand(records)
        with taken(convolution, "product") as product:
            total = weighted_sum(found, weights, torch.float32)
        assert product.called == expected
        exact = weights.double() @ found.of(
            found.slopes.double(), found.inputs.double()
        ).dense().flatten(1)
        torch.testing.assert_close(total.double().flatten(), exact, rtol=1e-5, atol=1e-5)
