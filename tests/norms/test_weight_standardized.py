import pytest
import torch
from torch import nn

from dpnorm.detection import check
from dpnorm.norms import WeightStandardizedConv
from tests.norms.per_sample import one_by_one, with_opacus

CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, padding=1), (3, 4, 9)),
    (nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), (3, 4, 7, 7)),
    (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (3, 4, 7, 7)),
    (nn.Conv2d(4, 6, (3, 2), padding=1, padding_mode="reflect"), (3, 4, 7, 7)),
    (nn.Conv3d(4, 6, 2), (3, 4, 4, 4, 4)),
]


@pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS)
def test_preserving_keeps_the_convolution(conv, shape):
    layer = WeightStandardizedConv(conv).double()
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(layer(x), conv.double()(x), atol=1e-6)


@pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS)
def test_kernels_have_mean_0_and_variance_1_without_preserving(conv, shape):
    kernels = WeightStandardizedConv(conv.double(), preserve=False).kernels().flatten(1)
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.allclose(kernels.mean(1), 0 * ones, atol=1e-8)
    assert torch.allclose(kernels.var(1, correction=0), ones, atol=1e-6)


@pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS)
def test_per_sample_gradients_equal_one_record_at_a_time(conv, shape):
    layer = WeightStandardizedConv(conv.double())
    x = torch.randn(shape, dtype=torch.float64)
    out_grad = torch.randn_like(layer(x))
    wanted, found = one_by_one(layer, x, out_grad), with_opacus(layer, x, out_grad)
    assert wanted.keys() == found.keys() >= {"weight", "gain", "offset"}
    assert all(torch.allclose(found[k], wanted[k], atol=1e-9) for k in wanted)


def test_check_proves_it():
    conv = WeightStandardizedConv(nn.Conv2d(1, 4, 3))
    net = nn.Sequential(conv, nn.Flatten(), nn.Linear(144, 2))
    assert check(net, torch.randn(4, 1, 8, 8)).verdict == "proven"
