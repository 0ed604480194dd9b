import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from dpnorm.detection import check
from dpnorm.errors import InputError
from dpnorm.norms import EvoNormS0
from tests.norms.per_sample import one_by_one, with_opacus

SHAPES = [(5, 4), (5, 4, 7), (5, 4, 3, 6), (5, 4, 2, 3, 2)]


def random_layer(groups: int = 2) -> EvoNormS0:
    layer = EvoNormS0(4, groups=groups, eps=1e-3).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def by_hand(layer: EvoNormS0, record: torch.Tensor) -> torch.Tensor:
    """The formula for one record (C, *), channel by channel."""
    size = len(record) // layer.groups
    rows = []
    for c, channel in enumerate(record):
        first = c - c % size
        std = (record[first : first + size].var(correction=0) + layer.eps).sqrt()
        gated = channel / (1 + torch.exp(-layer.v[c] * channel))
        rows.append(gated / std * layer.weight[c] + layer.bias[c])
    return torch.stack(rows)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_formula_record_by_record(shape, groups):
    layer = random_layer(groups)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(layer(x), torch.stack([by_hand(layer, r) for r in x]), atol=1e-12)


def test_on_images_it_is_timms_layer():
    timm = pytest.importorskip("timm")
    layer = random_layer()
    reference = timm.layers.EvoNorm2dS0(4, groups=2, eps=1e-3)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(5, 4, 6, 7)
    assert torch.allclose(layer.float()(x), reference(x), atol=1e-5)


@pytest.mark.parametrize("functorch", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_per_sample_gradients_equal_one_record_at_a_time(shape, functorch):
    layer = random_layer()
    x, out_grad = torch.randn(2, *shape, dtype=torch.float64)
    wanted = one_by_one(layer, x, out_grad)
    found = with_opacus(layer, x, out_grad, force_functorch=functorch)
    assert wanted.keys() == found.keys() == {"weight", "bias", "v"}
    assert all(torch.allclose(found[k], wanted[k], atol=1e-10) for k in wanted)


@pytest.mark.parametrize("trained", ["weight", "bias", "v"])
def test_a_fixed_parameter_gets_no_per_sample_gradient(trained):
    layer = random_layer()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name == trained)
    x, out_grad = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    wanted, found = one_by_one(layer, x, out_grad), with_opacus(layer, x, out_grad)
    assert wanted.keys() == found.keys() == {trained}
    assert torch.allclose(found[trained], wanted[trained], atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_records_do_not_overflow(dtype):
    x = torch.tensor([[1e4, -1e4, 1e4, -1e4]], dtype=dtype)
    wrapped = GradSampleModule(EvoNormS0(4).to(dtype), loss_reduction="sum")
    out = wrapped(x)
    out.sum().backward()
    assert out.dtype == dtype
    assert torch.allclose(out.float(), torch.tensor([[1.0, 0.0, 1.0, 0.0]]), atol=1e-2)
    for parameter in wrapped.parameters():
        assert parameter.grad_sample.dtype == dtype
        assert parameter.grad_sample.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_records_and_constant_records_give_finite_numbers(shape):
    layer = random_layer()
    assert layer(torch.zeros(0, *shape[1:], dtype=torch.float64)).shape == (0, *shape[1:])
    x = torch.full(shape, 3.0, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()


def test_groups_must_divide_the_channels():
    with pytest.raises(InputError, match=r"4 groups do not divide 6 channels.*\[1, 2, 3, 6\]"):
        EvoNormS0(6, groups=4)


def test_check_proves_it():
    norm = EvoNormS0(4, groups=2)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(144, 2))
    assert check(net, torch.randn(4, 1, 8, 8)).verdict == "proven"
