import pytest
import torch
import torch.nn.functional as F

from tests.provenance.brute_force import assert_sound, by_row, scattered, traced

EXACT = {
    "cat": lambda x: torch.cat([x, torch.zeros(0), x[:, :1], x * 2], 1),
    "cat rows": lambda x: torch.cat([x[2:], x[:2]], -3),
    "stack": lambda x: torch.stack([x, x + 1], -2),
    "hstack": lambda x: (torch.hstack([x, x]), torch.vstack([x, x]), torch.dstack([x, x])),
    "block_diag": lambda x: torch.block_diag(x[0], x[1, 0], x[2]),
    "flip": lambda x: x.flip(0, -1),
    "roll": lambda x: (x.roll(1, 0), x.roll((2, -1), (0, 1)), x.roll(5)),
    "rot90": lambda x: (x.rot90(1, (0, 1)), x.rot90(-1, (1, 2)), x.rot90(2, (0, 2))),
    "repeat": lambda x: (x.repeat(2, 1, 1, 3), x.tile(2), x.repeat(1, 0, 1)),
    "repeat_interleave": lambda x: (
        x.repeat_interleave(2, 0),
        x.repeat_interleave(torch.tensor([1, 0, 3, 2]), 1),
    ),
    "diag_embed": lambda x: (x.diag_embed(), x.diag_embed(1, 0, 2), x.diag_embed(-1, -2, 1)),
    "shuffle": lambda x: F.channel_shuffle(x[..., None], 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 4, 4, 4)[:, :, :3], 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "reflect": lambda x: (F.pad(x, (1, 2), "reflect"), F.pad(x, (0, 3, 2, 1), "reflect")),
    "replicate": lambda x: (F.pad(x, (1, 2), "replicate"), F.pad(x, (0, 3, 2, 1), "replicate")),
    "pad 3d": lambda x: (
        F.pad(x[None], (1, 1, 2, 0, 1, 2), "reflect"),
        F.pad(x[None], (1, 1, 2, 0, 1, 2), "replicate"),
    ),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[:, 0, 0], indexing="ij"),
    "circular": lambda x: F.pad(x, (1, 2), "circular"),
}
COARSE = {
    "constant": lambda x: (F.pad(x, (1, 2, 0, -1)), F.pad(x, (0, 0, -1, 2, 1, 1), value=3.0)),
    "triangle": lambda x: (x.triu(1), x.tril()),
    "im2col": lambda x: (F.unfold(x, 2), F.unfold(x[:, None], (2, 3), 1, 1, 2)),
    "col2im": lambda x: F.fold(x.reshape(1, 16, 4), (3, 3), 2),
}
ALL = EXACT | COARSE


def _flat(out):
    return [o for item in out for o in _flat(item)] if isinstance(out, (tuple, list)) else [out]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_moved_elements_keep_their_bits(name, dim):
    x = torch.randn(4, 4, 4)
    mask = scattered(x) if dim is None else by_row(x, dim)
    assert_sound(ALL[name], [x], [mask], exact=name in EXACT, trials=3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_gradients_move_back(name, dim):
    x = torch.randn(4, 4, 4)
    grads = [torch.randn(o.shape) for o in _flat(ALL[name](x))]
    masks = [scattered(g) if dim is None or g.dim() <= dim else by_row(g, dim) for g in grads]

    def backward(x, *grads):
        x.requires_grad_()
        return torch.autograd.grad(_flat(ALL[name](x)), x, grads)

    assert_sound(backward, [x, *grads], [scattered(x) * 0, *masks], trials=3)


MODES = [
    ("nearest", 1),
    ("nearest-exact", 1),
    ("linear", 1),
    ("nearest", 2),
    ("nearest-exact", 2),
    ("bilinear", 2),
    ("bicubic", 2),
    ("area", 2),
    ("nearest", 3),
    ("nearest-exact", 3),
    ("trilinear", 3),
]


@pytest.mark.parametrize(("mode", "n"), MODES)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_interpolation(mode, n, dim):
    x = torch.randn(3, 2, *(3,) * n)
    _check_resampling(lambda x: F.interpolate(x, scale_factor=2, mode=mode), x, dim, mode == "area")


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased_interpolation(mode):
    x = torch.randn(3, 2, 4, 4)
    _check_resampling(
        lambda x: F.interpolate(x, size=(3, 2), mode=mode, antialias=True), x, 0, False
    )


def _check_resampling(function, x, dim, unknown):
    mask = scattered(x) if dim is None else by_row(x, dim)
    assert_sound(function, [x], [mask], trials=3, allow_unknown=unknown)
    g = torch.randn(function(x).shape)
    mask = scattered(g) if dim is None else by_row(g, dim)
    assert_sound(
        lambda x, g: torch.autograd.grad(function(x.requires_grad_()), x, g),
        [x, g],
        [scattered(x) * 0, mask],
        trials=3,
        allow_unknown=unknown,
    )


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_grid_sampling(n, dim):
    x, grid = torch.randn(3, 2, *(3,) * n), torch.rand(3, *(2,) * n, n) * 2 - 1
    g = torch.randn(3, 2, *(2,) * n)

    def both(x, grid, g):
        x.requires_grad_(), grid.requires_grad_()
        out = F.grid_sample(x, grid, align_corners=False)
        (only,) = torch.autograd.grad(
            F.grid_sample(x, grid.detach(), align_corners=True, mode="nearest"), x, g
        )
        return out, *torch.autograd.grad(out, (x, grid), g), only

    masks = [scattered(t) if dim is None else by_row(t, dim) for t in (x, grid, g)]
    assert_sound(both, [x, grid, g], masks, trials=3)
    if dim == 0:
        _, tracer = traced(both, [x, grid, g], masks)
        assert not tracer.trace.of("mixed")


def test_affine_grids():
    theta = torch.randn(3, 2, 3)

    def grid(theta, g):
        theta.requires_grad_()
        out = F.affine_grid(theta, [3, 1, 2, 2], align_corners=False)
        return out, torch.autograd.grad(out, theta, g)

    g = torch.randn(3, 2, 2, 2)
    for mask in (by_row(theta), scattered(theta)):
        assert_sound(grid, [theta, g], [mask, by_row(g)], allow_unknown=True)


def test_lists_of_tensors():
    x, y = torch.rand(4, 3) + 1, torch.rand(4, 2) + 1

    def lists(x, y):
        a, b = [x.clone(), y.clone()], [x + 1, y + 1]
        torch._foreach_add_(a, b)
        torch._foreach_mul_(a, 2.0)
        torch._foreach_addcdiv_(a, b, [x, y], [1.0, 2.0])
        torch._foreach_sqrt_(b)
        zeros = [x.clone(), y.clone()]
        torch._foreach_zero_(zeros)
        target = [torch.zeros_like(x), torch.zeros_like(y)]
        torch._foreach_copy_(target, a)
        return (
            a,
            b,
            zeros,
            target,
            torch._foreach_add(a, b),
            torch._foreach_neg(a),
            torch._foreach_norm(a),
            torch._foreach_max(b),
            torch._foreach_lerp(a, b, 0.3),
            torch._foreach_mul(a, x[0, 0]),
            torch._foreach_pow(a, [2.0, 3.0]),
        )

    assert_sound(lists, [x, y], [by_row(x), by_row(y)], allow_unknown=False)
    found, _ = traced(lists, [x, y], [by_row(x), by_row(y)])
    assert not found[4].any()
    assert (found[0] == by_row(x)).all()


def test_lists_whose_results_feed_each_other():
    def rotate(x, y, z):
        torch._foreach_add_([x, y, z], [y, z, x])
        torch._foreach_mul_([x, x], [y, z])
        return x, y, z

    inputs = [torch.randn(1, 2) for _ in range(3)]
    masks = [by_row(t) * 0 + bit for t, bit in zip(inputs, (1, 2, 4), strict=True)]
    assert_sound(rotate, inputs, masks)


def test_padding_keeps_constant_dimensions_constant():
    x = torch.randn(4, 2, 5, 5)
    for function in (
        lambda x: F.pad(x, (1, 1, 1, 1)),
        lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
        lambda x: torch.cat([x, x], 1),
        lambda x: F.interpolate(x, scale_factor=2),
    ):
        (mask,), _ = traced(function, [x], [by_row(x)])
        assert mask.strides[1:] == (0, 0, 0)


def test_empty_batches():
    x = torch.randn(0, 4, 4)
    for name in ("cat", "cat rows", "stack", "hstack", "flip", "repeat", "diag_embed", "triangle"):
        assert_sound(ALL[name], [x], [by_row(x)], trials=1)
    images = torch.randn(0, 4, 4, 4)
    for function in (
        lambda x: F.pad(x, (1, 2, 0, 1)),
        lambda x: F.pad(x, (1, 2, 0, 1), "reflect"),
        lambda x: F.pad(x, (1, 2, 0, 1), "replicate"),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.interpolate(x, scale_factor=2),
    ):
        assert_sound(function, [images], [by_row(images)], trials=1)
