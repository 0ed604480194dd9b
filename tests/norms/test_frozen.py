import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from dpnorm.norms import FrozenBatchNorm

SHAPES = [(5, 4), (5, 4, 7), (5, 4, 3, 6), (5, 4, 2, 3, 2)]
LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def random_layer(dtype: torch.dtype = torch.float64) -> FrozenBatchNorm:
    mean, var, weight, bias = torch.rand(4, 4, dtype=dtype) + 0.5
    return FrozenBatchNorm.with_statistics(mean, var, weight, bias, eps=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_batch_norm_in_evaluation(shape):
    layer = random_layer()
    reference = LAYERS[len(shape)](4, eps=1e-3).double().eval()
    reference.running_mean, reference.running_var = (
        layer.statistics.running_mean,
        layer.statistics.running_var,
    )
    reference.weight, reference.bias = layer.weight, layer.bias
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(layer(x), reference(x), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_per_sample_gradients_equal_one_record_at_a_time(shape):
    layer = random_layer()
    x = torch.randn(shape, dtype=torch.float64)
    out_grad = torch.randn(shape, dtype=torch.float64)
    one_by_one = []
    for i in range(len(x)):
        layer.zero_grad()
        layer(x[i : i + 1]).backward(out_grad[i : i + 1])
        one_by_one.append((layer.weight.grad.clone(), layer.bias.grad.clone()))
    layer.zero_grad()
    wrapped = GradSampleModule(layer, loss_reduction="sum")
    wrapped(x.requires_grad_()).backward(out_grad)
    for i, (weight, bias) in enumerate(one_by_one):
        assert torch.allclose(layer.weight.grad_sample[i], weight, atol=1e-12)
        assert torch.allclose(layer.bias.grad_sample[i], bias, atol=1e-12)


def test_training_mode_and_data_leave_the_statistics_alone():
    layer = random_layer().train()
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer(torch.randn(8, 4, 5, 5, dtype=torch.float64) * 100)
    assert len(before) == 2
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
