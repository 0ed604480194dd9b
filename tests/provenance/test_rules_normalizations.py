import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

f64 = torch.float64


def check(forward, x, parameters, trials=3):
    g = torch.randn_like(forward(x, *parameters))

    def backward(g, x, *parameters):
        wanted = [t.requires_grad_() for t in (x, *parameters)]
        return torch.autograd.grad(forward(x, *parameters), wanted, g)

    for draw in (scattered, *(lambda t, d=d: by_row(t, d) for d in range(x.dim()))):
        masks = [draw(x), *(scattered(p, 4) for p in parameters)]
        assert_sound(forward, [x, *parameters], masks, trials=trials)
        assert_sound(backward, [g, x, *parameters], [draw(g), *masks], trials=trials)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (3, 4, 2, 2), (1, 8, 2)])
def test_group_norm(groups, shape):
    x, C = torch.randn(shape, dtype=f64), shape[1]
    weight, bias = torch.randn(2, C, dtype=f64).unbind()
    check(lambda x, w, b: F.group_norm(x, groups, w, b), x, [weight, bias])
    check(lambda x: F.group_norm(x, groups), x, [])


def test_groups_that_are_records_stay_apart():
    x = torch.randn(1, 12, 5, dtype=f64)  # four records of three channels each
    mask = by_row(x.view(1, 4, 15), 1).repeat(3, axis=1)[:, :, :5]

    def both(x):
        out = F.group_norm(x.requires_grad_(), 4)
        return out, torch.autograd.grad(out, x, x.detach())

    found, _ = traced(both, [x], [mask])
    assert all((m == mask).all() for m in found)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize("trailing", [1, 2])
def test_layer_norm(shape, trailing):
    x = torch.randn(shape, dtype=f64)
    weight, bias = torch.randn(2, *shape[-trailing:], dtype=f64).unbind()
    check(lambda x, w, b: F.layer_norm(x, w.shape, w, b), x, [weight, bias])
    check(lambda x: F.layer_norm(x, shape[-trailing:]), x, [])


def test_layer_norm_keeps_tokens_apart():
    x = torch.randn(4, 3, 5, dtype=f64)

    def both(x):
        out = F.layer_norm(x.requires_grad_(), (5,))
        return out, torch.autograd.grad(out, x, x.detach())

    for dim in (0, 1):
        found, tracer = traced(both, [x], [by_row(x, dim)])
        assert all((m == by_row(x, dim)).all() for m in found)
        assert not tracer.trace.of("unknown")


def test_rms_norm():
    x, weight = torch.randn(3, 4, dtype=f64), torch.randn(4, dtype=f64)
    check(lambda x, w: F.rms_norm(x, (4,), w), x, [weight])


def test_fused_rms_norm_backward():
    x, g, weight = torch.randn(3, 4), torch.randn(3, 4), torch.randn(4)
    try:
        rstd = torch.ones(3, 1)
        torch.ops.aten._fused_rms_norm_backward(g, x, [4], rstd, weight, [True, True])
    except NotImplementedError:
        pytest.skip("no kernel on this device")
    assert_sound(
        lambda g, x, w: torch.ops.aten._fused_rms_norm_backward(g, x, [4], rstd, w, [True, True]),
        [g, x, weight],
        [scattered(g), scattered(x, 1), scattered(weight)],
    )


@pytest.mark.parametrize("dim", [0, 2])
def test_weight_norm(dim):
    v = torch.randn(4, 3, 2, dtype=f64)
    size = [n if d == dim else 1 for d, n in enumerate(v.shape)]
    check(lambda v, g: torch._weight_norm(v, g, dim), v, [torch.randn(size, dtype=f64)])


def test_local_response_norm():
    x = torch.randn(3, 4, 5, dtype=f64)
    check(lambda x: F.local_response_norm(x, 2), x, [])


def test_empty_batches():
    x = torch.randn(0, 4, 3)
    for function in (
        lambda x: F.layer_norm(x, (3,)),
        lambda x: F.group_norm(x, 2),
        nn.BatchNorm1d(4).eval(),
    ):
        found, _ = traced(function, [x], [by_row(x)])
        assert found[0].shape == (0, 4, 3)
