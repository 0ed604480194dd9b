"""Inner products of windows, against windows that torch itself unfolds."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dpnorm.gradients.lean import windows
from dpnorm.gradients.lean.convolution import LeanConvolution


@st.composite
def forms(draw):
    kernel, stride, dilation, padding = (
        tuple(draw(st.integers(low, high)) for _ in range(2))
        for low, high in ((1, 4), (1, 3), (1, 2), (0, 3))
    )
    size = tuple(draw(st.integers(1, 9)) for _ in range(2))
    module = nn.Conv2d(
        draw(st.integers(1, 4)), 1, kernel, stride=stride, dilation=dilation, padding=padding
    )
    return module, size


def met(drawn, records):
    """The module, an input for it, and the size of its output."""
    module, size = drawn
    x = torch.randn(records, module.in_channels, *size, dtype=torch.float64)
    try:
        return module, x, module.double()(x).shape[2:]
    except RuntimeError:
        assume(False)  # the kernel is larger than what it meets


@pytest.mark.parametrize("way", [windows.pairs, windows.pairs_by_points, windows.pairs_by_windows])
@settings(max_examples=100)
@given(forms(), st.integers(1, 3))
def test_pairs_are_those_of_unfolded_windows(way, drawn, records):
    module, x, space = met(drawn, records)
    rows = F.unfold(
        x, module.kernel_size, module.dilation, module.padding, module.stride
    ).transpose(1, 2)
    found = way(LeanConvolution(module), x, module.kernel_size, space)
    torch.testing.assert_close(found, rows @ rows.transpose(1, 2), rtol=1e-12, atol=1e-12)


@settings(max_examples=100)
@given(forms(), st.integers(1, 3))
def test_rows_are_unfolded_windows_with_records_last(drawn, records):
    module, x, space = met(drawn, records)
    unfolded = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    found = windows.rows_of_windows(LeanConvolution(module), x, module.kernel_size, space)
    assert torch.equal(found, unfolded.permute(1, 2, 0).flatten(1))


def test_the_cheaper_way_is_taken(monkeypatch):
    taken = []
    for name in ("pairs_by_points", "pairs_by_windows"):
        real = getattr(windows, name)
        monkeypatch.setattr(
            windows, name, lambda *args, real=real, name=name: taken.append(name) or real(*args)
        )
    for channels, size, kernel, stride in ((128, 8, 3, 1), (128, 8, 3, 2), (64, 16, 3, 2)):
        module = nn.Conv2d(channels, 1, kernel, stride=stride, padding=1)
        x = torch.randn(2, channels, size, size)
        windows.pairs(LeanConvolution(module), x, (kernel, kernel), module(x).shape[2:])
    assert taken == ["pairs_by_points", "pairs_by_points", "pairs_by_windows"]
