import pytest
import torch
from torch.nn import functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

f64 = torch.float64
SIZES = {1: (3, 4, 6), 2: (3, 4, 4, 6), 3: (2, 3, 4, 4, 4)}
POOLS = {
    "max1": (1, lambda x: F.max_pool1d(x, 2)),
    "max1_indices": (1, lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True)),
    "max2": (2, lambda x: F.max_pool2d(x, 2)),
    "max2_rows": (2, lambda x: F.max_pool2d(x, (1, 3), (1, 2), (0, 1), return_indices=True)),
    "max3": (3, lambda x: F.max_pool3d(x, 2)),
    "avg1": (1, lambda x: F.avg_pool1d(x, 2)),
    "avg2": (2, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "avg2_columns": (2, lambda x: F.avg_pool2d(x, (2, 1), (1, 1))),
    "avg2_strided": (2, lambda x: F.avg_pool2d(x, 1, 2)),
    "avg3": (3, lambda x: F.avg_pool3d(x, 2)),
    "adaptive_avg1": (1, lambda x: F.adaptive_avg_pool1d(x, 2)),
    "adaptive_avg2": (2, lambda x: F.adaptive_avg_pool2d(x, (None, 4))),
    "adaptive_avg2_one": (2, lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive_avg3": (3, lambda x: F.adaptive_avg_pool3d(x, 3)),
    "adaptive_max1": (1, lambda x: F.adaptive_max_pool1d(x, 2)),
    "adaptive_max2": (2, lambda x: F.adaptive_max_pool2d(x, (3, 6), return_indices=True)),
    "adaptive_max3": (3, lambda x: F.adaptive_max_pool3d(x, 2)),
    "fractional2": (2, lambda x: F.fractional_max_pool2d(x, 2, output_size=2)),
    "fractional3": (3, lambda x: F.fractional_max_pool3d(x, 2, output_size=2)),
    "lp2": (2, lambda x: F.lp_pool2d(x, 2, 2)),
}


def first(out):
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("batched", [True, False])
def test_forward_and_backward(name, batched):
    rank, pool = POOLS[name]
    x = torch.randn(SIZES[rank] if batched else SIZES[rank][1:], dtype=f64)
    g = torch.randn_like(first(pool(x)))

    def backward(x, g):
        return torch.autograd.grad(first(pool(x.requires_grad_())), x, g)

    for draw in (scattered, *(lambda t, d=d: by_row(t, d) for d in range(x.dim()))):
        assert_sound(pool, [x], [draw(x)], trials=3)
        assert_sound(backward, [x, g], [draw(x), draw(g)], trials=3)


@pytest.mark.parametrize("name", POOLS)
def test_samples_and_channels_stay_apart(name):
    rank, pool = POOLS[name]
    x = torch.randn(SIZES[rank], dtype=f64)
    g = torch.randn_like(first(pool(x)))

    def backward(x, g):
        return torch.autograd.grad(first(pool(x.requires_grad_())), x, g)

    for dim in (0, 1):
        found, tracer = traced(pool, [x], [by_row(x, dim)])
        assert not tracer.trace.of("unknown")
        assert (found[0] == by_row(g, dim)).all()
        found, tracer = traced(backward, [x, g], [by_row(x, dim), by_row(g, dim)])
        assert not tracer.trace.of("unknown")
        assert (found[0] == by_row(x, dim)).all()


def test_a_dim_that_is_not_pooled_stays():
    x = torch.randn(1, 2, 4, 6, dtype=f64)
    for pool in (POOLS["max2_rows"][1], lambda x: F.adaptive_max_pool2d(x, (4, 2))):
        found, _ = traced(lambda x, pool=pool: first(pool(x)), [x], [by_row(x, 2)])
        assert (found[0] == by_row(first(pool(x)), 2)).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling(rank):
    x = torch.randn(SIZES[rank], dtype=f64)
    pool, unpool = getattr(F, f"max_pool{rank}d"), getattr(F, f"max_unpool{rank}d")

    def function(x):
        values, indices = pool(x.requires_grad_(), 2, return_indices=True)
        out = unpool(values, indices, 2)
        return out, torch.autograd.grad(out, x, torch.ones_like(out))

    for draw in (scattered, by_row):
        assert_sound(function, [x], [draw(x)], trials=3)
