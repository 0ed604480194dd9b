"""Mode "lean" on whole networks, in double precision, against one backward pass a record."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

import dpnorm
from dpnorm.detection import check
from dpnorm.gradients.factors import Factors, dense, row_norms
from dpnorm.gradients.lean.convolution import Convolved
from dpnorm.privacy import PrivateOptimizer, hooks_for
from tests.privacy.test_grad_sample import alone

EXACT = {"rtol": 1e-10, "atol": 1e-12}
CLIP, EXPECTED = 0.5, 4.0
TORCHVISION = (
    "tv:densenet121", "tv:efficientnet_b0", "tv:mobilenet_v3_small",
    "tv:regnet_y_400mf", "tv:resnext50_32x4d", "tv:shufflenet_v2_x0_5", "tv:squeezenet1_1",
    "tv:swin_v2_t",
)  # fmt: skip
VARIANTS = ("none", "group", "layer", "instance", "rms", "evonorm", "weight-standardized")


def converted(name, variant, size):
    torch.manual_seed(0)
    model = dpnorm.models.build(name, in_channels=2, num_classes=3, image_size=size)
    with torch.no_grad():
        model.train()(torch.randn(16, 2, size, size))  # statistics that a conversion can match
    return dpnorm.convert(model, to=variant).model.double().train()


def assert_step(model, x, y):
    """Gradients, norms and the clipped sum of a step without noise, to 1e-10."""
    expected = alone(model, x, y)
    squares = sum(g.reshape(len(g), -1).square().sum(1) for g in expected)
    factors = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1)
    wrapped = hooks_for(model, check(model, torch.cat([x, x])).rows, mode="lean")
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = PrivateOptimizer(
        sgd, noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=EXPECTED
    )
    F.cross_entropy(wrapped(x), y).backward()
    kept = [p.grad_sample for p in model.parameters()]
    for found, gradient in zip(kept, expected, strict=True):
        torch.testing.assert_close(dense(found), gradient, **EXACT)
        torch.testing.assert_close(row_norms(found), gradient.flatten(1).norm(dim=1), **EXACT)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    for p, old, gradient in zip(model.parameters(), before, expected, strict=True):
        total = (factors @ gradient.flatten(1)).view_as(p) / EXPECTED
        torch.testing.assert_close(old - p.detach(), total, **EXACT)
    return kept


def batch(records, size):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(records, 2, size, size, generator=generator, dtype=torch.float64)
    return x, torch.arange(records) % 3


@pytest.mark.parametrize("name", dpnorm.models.names())
def test_a_step_of_each_benchmark_model_is_that_of_single_records(name):
    assert_step(converted(name, "group", 16), *batch(3, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_a_step_of_torchvisions_networks_is_that_of_single_records(name):
    model = converted(name, "group", 64)
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0  # a record alone would draw otherwise
    assert_step(model, *batch(3, 64))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_each_variant_is_that_of_single_records(variant):
    assert_step(converted("lenet", variant, 12), *batch(4, 12))


@pytest.mark.parametrize("name", ["lenet", "resnet8"])
def test_a_batch_of_one_record_is_a_step(name):
    assert_step(converted(name, "group", 16), *batch(1, 16))


def test_a_batch_of_no_record_moves_nothing():
    model = converted("lenet", "group", 12)
    wrapped = hooks_for(model, check(model, batch(2, 12)[0]).rows, mode="lean")
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = PrivateOptimizer(
        sgd, noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=EXPECTED
    )
    F.cross_entropy(wrapped(batch(0, 12)[0]), batch(0, 12)[1], reduction="sum").backward()
    assert [len(p.grad_sample) for p in model.parameters()] == [0] * len(list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_the_deep_layers_of_a_wide_network_keep_factors():
    kept = assert_step(converted("wrn16-4", "group", 8), *batch(2, 8))
    assert sum(isinstance(found, Convolved) for found in kept) > 5


class Reader(nn.Module):
    """A text classifier: embedding, attention built of linear layers, RMSNorm."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 16, padding_idx=0)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.norm, self.wide, self.back = nn.RMSNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        h = self.words(x)
        h = h + F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        h = h + self.back(F.gelu(self.wide(self.norm(h))))
        return self.head(h.mean(1))


def test_a_reader_of_sequences_keeps_factors_of_all_its_tables():
    torch.manual_seed(0)
    model = Reader().double()
    kept = assert_step(model, torch.randint(0, 40, (4, 5)), torch.arange(4) % 3)
    tables = [found for found, p in zip(kept, model.parameters(), strict=True) if p.dim() > 1]
    assert all(isinstance(found, Factors) for found in tables)
