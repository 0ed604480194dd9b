import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import check
from dpnorm.errors import InputError
from dpnorm.norms import (
    PrivateBatchNorm,
    PrivateBatchNorm1d,
    PrivateBatchNorm2d,
    PrivateBatchNorm3d,
)

SHAPES = [
    (PrivateBatchNorm1d, nn.BatchNorm1d, (5, 4)),
    (PrivateBatchNorm1d, nn.BatchNorm1d, (5, 4, 7)),
    (PrivateBatchNorm2d, nn.BatchNorm2d, (5, 4, 3, 6)),
    (PrivateBatchNorm3d, nn.BatchNorm3d, (5, 4, 2, 3, 2)),
]


@pytest.mark.parametrize(("kind", "reference", "shape"), SHAPES)
def test_it_is_batch_norm_in_evaluation_in_both_modes(kind, reference, shape):
    torch.manual_seed(0)
    layer, other = kind(4, 1e-3).double(), reference(4, 1e-3).double().eval()
    with torch.no_grad():
        for target, source in (
            (layer.statistics.running_mean, other.running_mean),
            (layer.statistics.running_var, other.running_var),
            (layer.weight, other.weight),
            (layer.bias, other.bias),
        ):
            target.copy_(torch.rand(4) + 0.5)
            source.copy_(target)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(layer.train()(x), other(x), atol=1e-12)
    assert torch.allclose(layer.eval()(x), other(x), atol=1e-12)


def test_a_record_share_divides_each_record_by_a_mixture_of_1_and_its_own_scale():
    torch.manual_seed(0)
    x = torch.randn(5, 4, 3, 3, dtype=torch.float64) * torch.tensor([0.1, 1, 2, 5, 0]).view(
        -1, 1, 1, 1
    )
    for share in (0.3, 1.0):
        out = PrivateBatchNorm2d(4, 0.0, record_share=share).double()(x)
        square = x.square().mean((1, 2, 3), keepdim=True)
        expected = x / (1 - share + share * square + 1e-5).sqrt()
        assert torch.allclose(out, expected, atol=1e-9)
        net = nn.Sequential(PrivateBatchNorm2d(4, record_share=share), nn.Flatten())
        assert check(net, x.float()).verdict == "proven"
    with pytest.raises(InputError, match="record_share"):
        PrivateBatchNorm2d(4, record_share=1.5)


def test_a_forward_pass_writes_nothing():
    layer = PrivateBatchNorm2d(4).train()
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer(torch.randn(8, 4, 5, 5) * 100)
    assert before.keys() == {
        "statistics.running_mean",
        "statistics.running_var",
        "statistics.uncertainty",
    }
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 7), (6, 4, 3, 5)])
def test_rows_say_mean_and_mean_square_of_their_normalized_channels(shape):
    torch.manual_seed(0)
    statistics = PrivateBatchNorm(4).double().statistics
    z = torch.randn(shape, dtype=torch.float64)
    said = statistics.of_rows(z)
    flat = z.reshape(6, 4, -1)
    assert torch.allclose(said[:, :4], flat.mean(2), atol=1e-12)
    assert torch.allclose(said[:, 4:], flat.square().mean(2) - 1, atol=1e-12)
    assert statistics.of_rows(z[:0]).shape == (0, 8)


def test_exact_releases_of_one_batch_with_momentum_1_are_its_batch_statistics():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 4, 4, dtype=torch.float64) * 2 + 5
    layer = PrivateBatchNorm2d(3, momentum=1.0).double()
    for _ in range(12):  # a release changes a variance fourfold at most
        said = layer.statistics.of_rows(layer.statistics(x)).mean(0)
        layer.statistics.release(said, noise=0.0, records=64)
    assert torch.allclose(layer.statistics.running_mean, x.mean((0, 2, 3)), atol=1e-9)
    expected = x.var((0, 2, 3), correction=0)
    assert torch.allclose(layer.statistics.running_var, expected, rtol=1e-3)
    normalized = F.batch_norm(x, None, None, training=True)
    assert torch.allclose(layer(x), normalized, atol=1e-2)


def test_the_weight_of_a_release_follows_its_noise():
    """Of a Kalman filter: its error stays below that of any one release, and of the start."""
    torch.manual_seed(0)
    errors = []
    for noise in (0.01, 1.0, 10.0):
        layer = PrivateBatchNorm(1000)
        for _ in range(200):
            wrong = -layer.statistics.running_mean / (layer.statistics.running_var + 1e-5).sqrt()
            square = (1 + wrong.square()) / 1 - 1  # of unit normal activations, to first order
            said = torch.cat([wrong, square]) + noise * torch.randn(2000)
            layer.statistics.release(said, noise=noise, records=1e9)
        error = layer.statistics.running_mean.square().mean().sqrt().item()
        claimed = layer.statistics.uncertainty.sqrt().item()
        assert error < min(1.0, noise)
        assert error < 2 * claimed
        errors.append(error)
    assert errors == sorted(errors)


def test_a_variance_stays_positive_under_any_noise():
    torch.manual_seed(0)
    layer = PrivateBatchNorm(50, momentum=0.5)
    for _ in range(100):
        layer.statistics.release(100 * torch.randn(100), noise=100.0, records=10)
    var = layer.statistics.running_var
    assert bool((var >= 0).all())
    assert bool(layer(torch.randn(3, 50)).isfinite().all())


@pytest.mark.parametrize("affine", [True, False])
def test_check_proves_it(affine):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), PrivateBatchNorm2d(4, affine=affine), nn.Flatten(), nn.Linear(144, 2)
    )
    report = check(net, torch.randn(4, 1, 8, 8))
    assert report.verdict == "proven"
    assert "1.statistics" in report.rows


def test_statistics_of_coupled_rows_are_not_proven():
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.lin = PrivateBatchNorm(4, affine=False), nn.Linear(4, 2)

        def forward(self, x):
            self.norm(x - x.mean(0))  # goes nowhere, and yet is released
            return self.lin(x)

    assert check(Coupled(), torch.randn(4, 4)).verdict != "proven"


def test_what_is_no_such_layer_is_an_error():
    with pytest.raises(InputError, match="2 dimensions; it takes 4"):
        PrivateBatchNorm2d(4)(torch.randn(3, 4))
    with pytest.raises(InputError, match="momentum is 0"):
        PrivateBatchNorm(4, momentum=0.0)
    with pytest.raises(InputError, match="num_features"):
        PrivateBatchNorm(0)
    with pytest.raises(InputError, match="uncertainty"):
        PrivateBatchNorm(4, uncertainty=float("nan"))
