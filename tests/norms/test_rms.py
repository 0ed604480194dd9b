import pytest
import torch
from torch import nn

from dpnorm.detection import check
from dpnorm.norms import RecordRMSNorm
from tests.norms.per_sample import one_by_one, with_opacus

SHAPES = [(5, 4), (5, 4, 7), (5, 4, 3, 6), (5, 4, 2, 3, 2)]


def random_layer() -> RecordRMSNorm:
    layer = RecordRMSNorm(4, eps=1e-3).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def test_on_flat_records_it_is_torchs_rms_norm():
    layer, reference = random_layer(), nn.RMSNorm(4, eps=1e-3).double()
    reference.weight = layer.weight
    x = torch.randn(6, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), reference(x) + layer.bias, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_on_centered_records_it_is_group_norm_with_one_group(shape):
    layer = random_layer()
    x = torch.randn(shape, dtype=torch.float64)
    x = x - x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    reference = nn.functional.group_norm(x, 1, layer.weight, layer.bias, eps=1e-3)
    assert torch.allclose(layer(x), reference, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_per_sample_gradients_equal_one_record_at_a_time(shape):
    layer = random_layer()
    x, out_grad = torch.randn(2, *shape, dtype=torch.float64)
    wanted, found = one_by_one(layer, x, out_grad), with_opacus(layer, x, out_grad)
    assert wanted.keys() == found.keys() == {"weight", "bias"}
    assert all(torch.allclose(found[k], wanted[k], atol=1e-12) for k in wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_records_do_not_overflow(dtype):
    out = RecordRMSNorm(4).to(dtype)(torch.full((2, 4, 3, 3), 1e4, dtype=dtype))
    assert out.dtype == dtype
    assert torch.allclose(out.float(), torch.ones(2, 4, 3, 3), atol=1e-2)


def test_check_proves_it():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), RecordRMSNorm(4), nn.Flatten(), nn.Linear(144, 2))
    assert check(net, torch.randn(4, 1, 8, 8)).verdict == "proven"
