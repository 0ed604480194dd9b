"""dpnorm's own layers run lean, against one backward pass for each record alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.gradients.lean import lean_call, lean_layer
from dpnorm.norms import EvoNormS0, RecordRMSNorm, ScaleNorm, WeightStandardizedConv
from dpnorm.norms.channels import ChannelAffine
from dpnorm.norms.own_scale import mean_square
from dpnorm.privacy import lean_norms, lean_standardized
from tests.gradients.exact import Gathered, assert_exact

orders = st.sampled_from(["record-major", "record-minor"])
spaces = st.lists(st.integers(1, 4), max_size=3)


def test_the_layers_are_registered():
    assert isinstance(lean_layer(RecordRMSNorm(2)), lean_norms.LeanRMSNorm)
    conv = WeightStandardizedConv(nn.Conv1d(2, 2, 2))
    assert isinstance(lean_layer(conv), lean_standardized.LeanStandardizedConvolution)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@settings(max_examples=40)
@given(st.integers(1, 5), st.sampled_from([1, 2, 3]), spaces, orders, st.sampled_from([1.0, 5.0]))
def test_channel_affines_are_those_of_each_record_alone(share, records, rows, space, order, scale):
    torch.manual_seed(0)
    x = torch.randn(records * rows, 3, *space, dtype=torch.float64) * 2 + 1
    weight, bias = torch.randn(2, 3, dtype=torch.float64)
    module = ChannelAffine(weight, bias, record_share=share)
    assert_exact(module, x, rows=rows, order=order, scale=scale)
    layer = lean_layer(module)
    assert layer.serves(x, mean_square(x))
    assert not layer.serves(x, mean_square(x)[:, None])
    assert not layer.serves(x, mean_square(x), 1)
    if share:  # known beforehand, as within a ChannelNorm
        known = (mean_square(x),)
        assert_exact(module, x, rows=rows, order=order, scale=scale, constants=known)


@settings(max_examples=60)
@given(st.integers(1, 5), st.sampled_from([1, 2, 3]), spaces, orders, st.sampled_from([1.0, 5.0]))
def test_rms_norms_are_those_of_each_record_alone(records, rows, space, order, scale):
    torch.manual_seed(0)
    x = torch.randn(records * rows, 3, *space, dtype=torch.float64) * 2 + 1
    module = RecordRMSNorm(3).double()
    nn.init.normal_(module.weight)
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@settings(max_examples=60)
@given(
    st.integers(1, 5),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 4]),
    spaces,
    orders,
    st.sampled_from([1.0, 5.0]),
)
def test_evonorms_are_those_of_each_record_alone(records, rows, groups, space, order, scale):
    torch.manual_seed(0)
    x = torch.randn(records * rows, 4, *space, dtype=torch.float64) * 2 + 1
    module = EvoNormS0(4, groups=groups).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert_exact(module, x, rows=rows, order=order, scale=scale)


@settings(max_examples=60)
@given(st.integers(1, 5), st.sampled_from([1, 2, 3]), spaces, orders, st.sampled_from([1.0, 5.0]))
def test_scale_norms_are_those_of_each_record_alone(records, rows, space, order, scale):
    torch.manual_seed(0)
    x = torch.randn(records * rows, 3, *space, dtype=torch.float64) * 2 + 1
    x[0] = x[0] * 1e-9  # a record that is shorter than what it is divided by
    assert_exact(ScaleNorm(3).double(), x, rows=rows, order=order, scale=scale)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "conv",
    [
        lambda bias: nn.Conv1d(4, 6, 3, padding=1, stride=2, bias=bias),
        lambda bias: nn.Conv2d(4, 6, 3, padding="same", dilation=2, bias=bias),
        lambda bias: nn.Conv2d(4, 6, (2, 3), padding=1, padding_mode="circular", bias=bias),
        lambda bias: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=bias),
        lambda bias: nn.Conv3d(4, 6, 2, bias=bias),
    ],
)
def test_standardized_convolutions_are_those_of_each_record_alone(conv, rows, preserve, bias):
    torch.manual_seed(0)
    module = WeightStandardizedConv(conv(bias), preserve=preserve).double()
    x = torch.randn(6, 4, *[6] * (module.weight.dim() - 2), dtype=torch.float64)
    assert_exact(module, x, rows=rows, scale=6.0)


@pytest.mark.parametrize("frozen", ["weight", "gain", "offset", "bias"])
def test_what_is_frozen_in_a_standardized_convolution_gets_nothing(frozen):
    torch.manual_seed(0)
    module = WeightStandardizedConv(nn.Conv2d(2, 3, 3)).double()
    getattr(module, frozen).requires_grad_(False)
    layer, x = lean_layer(module), torch.randn(4, 2, 5, 5, dtype=torch.float64)

    sink = Gathered(4)
    lean_call(layer, (x,), sink).square().sum().backward()
    names = ["weight", "gain", "offset", "bias"]
    assert [name for name, g in zip(names, sink.samples, strict=True) if g is None] == [frozen]
