"""Average pooling as a matrix product, against torch's kernel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, vmap

from dpnorm.gradients.lean.average_pool import MOST_POINTS, average_pool

sizes = st.one_of(st.none(), st.integers(1, 9))


@settings(max_examples=200)
@given(
    st.one_of(st.integers(2, 9), st.tuples(sizes, sizes)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 16), st.integers(1, 16)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_means_and_gradients_are_those_of_torch(asked, shape, dtype):
    module = nn.AdaptiveAvgPool2d(asked)
    pool = average_pool(module)
    if asked == (1, 1):
        assert pool is None
        return
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    assert pool.serves(x)
    found, expected = pool(x), module(x)
    close = {"rtol": 0, "atol": 100 * torch.finfo(dtype).eps}
    torch.testing.assert_close(found, expected, **close)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(output, x, slope)[0] for output in (found, expected)), **close
    )
    assert found.is_contiguous()


def test_other_sizes_and_types_have_shares_of_their_own():
    pool, module = average_pool(nn.AdaptiveAvgPool2d(3)), nn.AdaptiveAvgPool2d(3)
    for size, dtype in ((5, torch.float32), (7, torch.float32), (5, torch.float64)):
        x = torch.randn(2, 2, size, size, dtype=dtype)
        torch.testing.assert_close(pool(x), module(x))


def test_what_a_transform_began_serves_after_it():
    pool, module = average_pool(nn.AdaptiveAvgPool2d(2)), nn.AdaptiveAvgPool2d(2)
    x = torch.randn(3, 1, 2, 6, 6)
    found = vmap(grad(lambda x: pool(x).square().sum()))(x)
    expected = vmap(grad(lambda x: module(x).square().sum()))(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pool(x[0]), module(x[0]))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 4, 1, MOST_POINTS + 1),
        torch.zeros(4, 8, 8),
        torch.zeros(0, 4, 8, 8),
        torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16),
        torch.zeros(2, 4, 8, 8).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 8, 4, 8).transpose(1, 2),
    ],
    ids=["many points", "one record", "no record", "half precision", "channels last", "a view"],
)
def test_what_it_does_not_serve(x):
    pool = average_pool(nn.AdaptiveAvgPool2d(2))
    assert pool.serves(torch.zeros(2, 4, 8, 8))
    assert not pool.serves(x)


def test_under_autocast_it_runs_as_it_is():
    pool = average_pool(nn.AdaptiveAvgPool2d(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert not pool.serves(torch.zeros(2, 4, 8, 8))


def test_modules_that_run_as_they_are():
    class Other(nn.AdaptiveAvgPool2d):
        pass

    own = nn.AdaptiveAvgPool2d(2)
    own.forward = own.forward
    for module in (
        Other(2),
        nn.AdaptiveAvgPool2d(1),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool1d(2),
        own,
    ):
        assert average_pool(module) is None
