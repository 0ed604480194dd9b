import pytest
import torch

from tests.provenance.brute_force import assert_sound, by_row, scattered

TRANSFORMS = {
    "rfft": lambda x, dim: torch.view_as_real(torch.fft.rfft(x, dim=dim)),
    "fft": lambda x, dim: torch.view_as_real(torch.fft.fft(x, dim=dim)),
    "irfft": lambda x, dim: torch.fft.irfft(torch.fft.rfft(x, dim=dim), n=x.shape[dim], dim=dim),
    "ifft2": lambda x, dim: torch.fft.ifft2(x, dim=(dim, 0)).real,
}
ATEN = {
    "rfft": lambda x, dim: torch.ops.aten._fft_r2c(x, [dim], 0, True),
    "fft": lambda x, dim: torch.ops.aten._fft_c2c(
        torch.ops.aten._fft_r2c(x, [1], 0, 1), [dim], 0, 1
    ),
    "irfft": lambda x, dim: torch.ops.aten._fft_c2r(
        torch.ops.aten._fft_r2c(x, [dim], 0, True), [dim], 0, x.shape[dim]
    ),
}


@pytest.mark.parametrize("name", ATEN)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_transform_mixes_its_line_only(name, dim):
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    for mask in (scattered(x), *(by_row(x, d) for d in range(3))):
        assert_sound(lambda x: ATEN[name](x, dim), [x], [mask], trials=3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_public_transforms_and_their_gradients(name):
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    g = torch.randn_like(TRANSFORMS[name](x, 2))

    def backward(x, g):
        return torch.autograd.grad(TRANSFORMS[name](x.requires_grad_(), 2), x, g)

    for d in range(3):
        masks = [by_row(x, d), by_row(g, d)]
        assert_sound(lambda x: TRANSFORMS[name](x, 2), [x], masks[:1])
        assert_sound(backward, [x, g], masks, trials=3)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
def test_segments(reduce):
    x, lengths = torch.randn(5, 3, dtype=torch.float64), torch.tensor([2, 0, 3])
    g = torch.randn(3, 3, dtype=torch.float64)

    def forward(x, lengths):
        return torch.segment_reduce(x, reduce, lengths=lengths, axis=0, unsafe=True, initial=1.0)

    def backward(x, g):
        return torch.autograd.grad(forward(x.requires_grad_(), lengths), x, g)

    for mask in (scattered(x), by_row(x), by_row(x, 1)):
        assert_sound(lambda x: forward(x, lengths), [x], [mask])
        assert_sound(backward, [x, g], [mask, scattered(g)])
