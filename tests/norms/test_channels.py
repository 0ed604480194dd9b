import copy

import pytest
import torch
from torch import nn

from dpnorm.norms import FrozenBatchNorm2d, PrivateBatchNorm2d, PublicBatchNorm2d

KINDS = [FrozenBatchNorm2d, PrivateBatchNorm2d, PublicBatchNorm2d]


def network(norm):
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))


def trained(**options):
    """A network with a BatchNorm that has seen something."""
    torch.manual_seed(0)
    model = network(nn.BatchNorm2d(4, **options))
    for _ in range(3):
        model(torch.randn(6, 1, 8, 8) + 1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.rand_like(p))
    return model.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_a_trained_batch_norm_is_taken(kind, affine):
    source, x = trained(affine=affine), torch.randn(5, 1, 8, 8)
    state, model = source.state_dict(), network(kind(4, affine=affine))
    before = copy.copy(state)
    model.load_state_dict(state)
    torch.testing.assert_close(model(x), source(x))
    assert state.keys() == before.keys()
    own = model.state_dict()
    again = network(kind(4, affine=affine))
    again.load_state_dict(own)
    assert all(torch.equal(t, own[name]) for name, t in again.state_dict().items())


def test_what_a_batch_norm_does_not_know_stays_as_it_was():
    model = network(PrivateBatchNorm2d(4, uncertainty=0.25))
    model.load_state_dict(trained().state_dict())
    assert model[1].statistics.uncertainty == 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_does_not_fit_is_told(kind):
    with pytest.raises(RuntimeError, match=r"Missing key.*1\.affine\.weight"):
        network(kind(4)).load_state_dict(trained(affine=False).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*1\.affine\.weight"):
        network(kind(4, affine=False)).load_state_dict(trained().state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.statistics\.running_mean"):
        network(kind(5)).load_state_dict(trained().state_dict(), strict=False)
    state = trained().state_dict()
    del state["1.running_var"]
    with pytest.raises(RuntimeError, match=r"Missing key.*1\.statistics\.running_var"):
        network(kind(4)).load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_another_precision_are_normalized_in_the_wider_one(kind, dtype):
    layer = kind.with_statistics(torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.5]))
    x = torch.randn(3, 2, 4, 4).to(dtype).requires_grad_()
    wide = torch.promote_types(dtype, torch.float32)
    y = layer.statistics(x)
    assert y.dtype == wide
    kept = layer.statistics
    mean, var = (t.to(wide).view(1, 2, 1, 1) for t in (kept.running_mean, kept.running_var))
    torch.testing.assert_close(y, (x.to(wide) - mean) / (var + 1e-5).sqrt(), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.dtype == dtype
