import pytest
import torch
from torch.func import grad, vmap

from dpnorm.detection import check
from dpnorm.norms import PrivateBatchNorm2d
from dpnorm.norms.own_scale import mean_square, own_scale, scaled

SHAPES = [(5, 4), (5, 4, 7), (5, 4, 3, 6), (5, 4, 2, 3, 2), (0, 4, 3, 3), (5, 1), (1, 4, 1, 1)]
SHARES = [0.3, 0.5, 1.0]


def composed(z, weight, bias, share):
    """The formula as it is written, for autograd."""
    mean = z.square().flatten(1).sum(1) / max(z[:1].numel(), 1)
    scale = 1 / (1 - share + share * mean + 1e-5).sqrt()
    shape = (1, -1, *[1] * (z.dim() - 2))
    return z * scale.view(-1, *[1] * (z.dim() - 1)) * weight.view(shape) + bias.view(shape)


def arguments(shape, *, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator, dtype=torch.float64)
    z = z * torch.logspace(-1, 1, len(z)).double().view(-1, *[1] * (len(shape) - 1))
    weight, bias = torch.randn(2, shape[1], generator=generator, dtype=torch.float64)
    return tuple(t.to(dtype).requires_grad_() for t in (z, weight, bias))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_formula(shape, share):
    given = arguments(shape)
    out, expected = scaled(*given, share), composed(*given, share)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    above = torch.randn(shape, dtype=torch.float64)
    for found, wanted in zip(
        torch.autograd.grad(out, given, above),
        torch.autograd.grad(expected, given, above),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_first_and_second_derivatives_are_those_of_finite_differences():
    given = arguments((3, 2, 2))
    assert torch.autograd.gradcheck(lambda *a: scaled(*a, 0.5), given)
    assert torch.autograd.gradgradcheck(lambda *a: scaled(*a, 0.5), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_squared_in_single(dtype):
    z, weight, bias = arguments((5, 4, 3, 6), dtype=dtype)
    large = (z.detach() * 300).requires_grad_()
    out = scaled(large, weight, bias, 1.0)
    expected = composed(*(t.detach().double() for t in (large, weight, bias)), 1.0)
    torch.testing.assert_close(out.double(), expected, rtol=2e-2, atol=2e-2)
    out.sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.isfinite().all() for t in (large, weight, bias))


def test_a_record_of_zeros_has_a_finite_scale_and_gradient():
    z = torch.zeros(2, 3, 4, requires_grad=True)
    scaled(z, torch.ones(3), torch.zeros(3), 1.0).sum().backward()
    assert own_scale(mean_square(z), 1.0).isfinite().all()
    assert z.grad.isfinite().all()


def test_torch_func_finds_the_gradients_of_each_record():
    z, weight, bias = (t.detach() for t in arguments((5, 4, 3)))

    def loss(record, weight):
        return scaled(record[None], weight, bias, 0.5).square().sum()

    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(0, None))(z, weight)
    for i in range(len(z)):
        record, own = z[i : i + 1].requires_grad_(), weight.clone().requires_grad_()
        loss_ = composed(record, own, bias, 0.5).square().sum()
        wanted = torch.autograd.grad(loss_, (record, own))
        torch.testing.assert_close(found[0][i], wanted[0][0])
        torch.testing.assert_close(found[1][i], wanted[1])


def test_check_proves_it_behind_a_layer_that_is_trained():
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 4, 3), PrivateBatchNorm2d(4, record_share=0.5)),
        *(torch.nn.Conv2d(4, 4, 3), PrivateBatchNorm2d(4, record_share=0.5, affine=False)),
    )
    assert check(model, torch.randn(4, 1, 8, 8)).verdict == "proven"
