"""Max pooling with channels last against torch's with channels first: the same to the last bit."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.gradients.lean.max_pool import FEW_CHANNELS, channels_last, max_pool

pairs = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
VALUES = (-1.0, 0.0, 1.0, float("-inf"), float("inf"), float("nan"))


@st.composite
def poolings(draw):
    kernel = draw(pairs)
    widest = kernel if isinstance(kernel, int) else min(kernel)
    return nn.MaxPool2d(
        kernel,
        stride=draw(st.one_of(st.none(), pairs)),
        padding=draw(st.integers(0, widest // 2)),
        dilation=draw(st.integers(1, 2)),
        ceil_mode=draw(st.booleans()),
    )


def form_of(module):
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    return {name: getattr(module, name) for name in names}


@settings(max_examples=200)
@given(
    poolings(),
    st.integers(1, 5),
    st.integers(FEW_CHANNELS, 9),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_same_maxima_of_the_same_places(module, rows, channels, size, dtype, equals, seed):
    """Of equal values and of NaN the same one is taken, whose gradient it then is."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, channels, *size)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    if equals:
        x = torch.tensor(VALUES, dtype=dtype)[
            torch.randint(len(VALUES), shape, generator=generator)
        ]
    x.requires_grad_()
    try:
        expected, places = F.max_pool2d(x, return_indices=True, **form_of(module))
    except RuntimeError:
        assume(False)  # the kernel is larger than what it meets
    # a dilated window may meet padding alone: torch's place is then none, and its backward crashes
    assume(places.min() >= 0 and places.max() < x[0, 0].numel())
    pool = max_pool(module)
    assume(pool.serves(x))  # one position: both orders of memory are the same
    found = pool(x)
    assert torch.equal(found.nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))
    assert torch.equal(found.isnan(), expected.isnan())
    slope = torch.randn(expected.shape, generator=generator, dtype=dtype)
    (of_found,) = torch.autograd.grad(found, x, slope)
    (of_expected,) = torch.autograd.grad(expected, x, slope)
    assert torch.equal(of_found, of_expected)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, FEW_CHANNELS - 1, 8, 8),
        torch.zeros(FEW_CHANNELS, 8, 8),
        torch.zeros(0, FEW_CHANNELS, 8, 8),
        torch.zeros(2, FEW_CHANNELS, 8, 8, dtype=torch.bfloat16),
        torch.zeros(2, FEW_CHANNELS, 8, 8).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 8, FEW_CHANNELS, 8).transpose(1, 2),
    ],
    ids=["few channels", "one record", "no record", "half precision", "channels last", "a view"],
)
def test_what_it_does_not_serve(x):
    pool = max_pool(nn.MaxPool2d(2))
    assert pool.serves(torch.zeros(2, FEW_CHANNELS, 8, 8))
    assert not pool.serves(x)


@pytest.mark.parametrize("shape", [(2, 19, 32, 32), (1, 8, 16, 64), (3, 5, 32, 64), (2, 6, 7, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_with_channels_last_has_the_same_numbers(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    found = channels_last(x)
    assert torch.equal(found, x)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_modules_that_run_as_they_are():
    class Other(nn.MaxPool2d):
        pass

    own = nn.MaxPool2d(2)
    own.forward = own.forward
    for module in (Other(2), nn.MaxPool2d(2, return_indices=True), nn.MaxPool1d(2), own):
        assert max_pool(module) is None
