import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpnorm.detection import check
from dpnorm.errors import InputError
from dpnorm.norms import PublicBatchNorm1d, PublicBatchNorm2d, refresh_statistics


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        PublicBatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        PublicBatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(48, 2),
    ).double()


def test_public_records_are_normalized_as_batch_norm_does():
    net, public = network(), torch.randn(20, 1, 8, 8, dtype=torch.float64)
    refresh_statistics(net, public)
    h = net[3](F.relu(F.batch_norm(net[0](public), None, None, training=True)))
    expected = F.batch_norm(h, None, None, training=True)
    assert torch.allclose(net[:5](public), expected, atol=1e-9)


def test_private_records_leave_the_statistics_alone_and_are_normalized_by_them():
    net, public = network(), torch.randn(20, 1, 8, 8, dtype=torch.float64)
    refresh_statistics(net, public)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64) * 50
    out = net(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert torch.allclose(torch.cat([net(row[None]) for row in x]), out, atol=1e-9)


def test_check_proves_it_and_refutes_statistics_of_the_union():
    class Union(nn.Module):
        """As the published code does: private and public rows together."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.register_buffer("public", torch.randn(6, 1, 8, 8))
            self.lin = nn.Linear(144, 2)

        def forward(self, x):
            h = self.conv(torch.cat([x, self.public]))
            return self.lin(F.batch_norm(h, None, None, training=True)[: len(x)].flatten(1))

    x = torch.randn(4, 1, 8, 8)
    assert check(network().float(), x).verdict == "proven"
    assert check(Union(), x).verdict == "refuted"


def test_one_public_record_without_positions_has_no_variance():
    with pytest.raises(InputError, match="at least two records"):
        refresh_statistics(PublicBatchNorm1d(4), torch.randn(1, 4))


def test_several_inputs_and_keyword_inputs_run_too():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = PublicBatchNorm1d(4)

        def forward(self, a, b):
            return self.norm(a + b)

    a, b = torch.randn(2, 9, 4)
    for inputs in ((a, b), {"a": a, "b": b}):
        net = Two()
        refresh_statistics(net, inputs)
        assert torch.allclose(net.norm.statistics.running_mean, (a + b).mean(0), atol=1e-6)
        assert not net.norm.statistics.refreshing
