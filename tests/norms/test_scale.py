import math

import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from dpnorm.detection import check
from dpnorm.norms import RecordRMSNorm, ScaleNorm
from tests.norms.per_sample import one_by_one, with_opacus

SHAPES = [(5, 4), (5, 4, 7), (5, 4, 3, 6), (5, 4, 2, 3, 2)]


def random_layer() -> ScaleNorm:
    layer = ScaleNorm(4).double()
    nn.init.normal_(layer.gain)
    return layer


def test_on_flat_records_it_is_the_published_formula():
    layer = random_layer()
    x = torch.randn(6, 4, dtype=torch.float64)
    wanted = [layer.gain.item() * row / math.sqrt(float((row * row).sum())) for row in x]
    assert torch.allclose(layer(x), torch.stack(wanted), atol=1e-12)
    assert ScaleNorm(9).gain.item() == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_at_first_it_is_rms_norm_whatever_the_size_of_a_record(shape):
    x = torch.randn(shape, dtype=torch.float64)
    reference = RecordRMSNorm(4, eps=0.0).double()
    assert torch.allclose(ScaleNorm(4).double()(x), reference(x), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_record_gets_the_same_length(shape):
    layer = random_layer()
    lengths = layer(torch.randn(shape, dtype=torch.float64)).flatten(1).norm(dim=1)
    wanted = abs(layer.gain.item()) * math.sqrt(math.prod(shape[2:]))
    assert torch.allclose(lengths, torch.full_like(lengths, wanted), atol=1e-10)


@pytest.mark.parametrize("functorch", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_per_sample_gradients_equal_one_record_at_a_time(shape, functorch):
    layer = random_layer()
    x, out_grad = torch.randn(2, *shape, dtype=torch.float64)
    wanted = one_by_one(layer, x, out_grad)
    found = with_opacus(layer, x, out_grad, force_functorch=functorch)
    assert wanted.keys() == found.keys() == {"gain"}
    assert found["gain"].shape == (5,)
    assert torch.allclose(found["gain"], wanted["gain"], atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_records_do_not_overflow(dtype):
    wrapped = GradSampleModule(ScaleNorm(4).to(dtype), loss_reduction="sum")
    out = wrapped(torch.full((2, 4, 3, 3), 1e4, dtype=dtype))
    out.sum().backward()
    assert out.dtype == wrapped._module.gain.grad_sample.dtype == dtype
    assert torch.allclose(out.float(), torch.ones(2, 4, 3, 3), atol=1e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_records_and_records_of_zeros_give_finite_numbers(shape):
    layer = random_layer()
    assert layer(torch.zeros(0, *shape[1:], dtype=torch.float64)).shape == (0, *shape[1:])
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    assert x.grad.isfinite().all()


def test_check_proves_it():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), ScaleNorm(4), nn.Flatten(), nn.Linear(144, 2))
    assert check(net, torch.randn(4, 1, 8, 8)).verdict == "proven"
