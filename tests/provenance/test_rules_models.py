"""Whole models, forward and backward: no operator without a rule, no false coupling."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpnorm.provenance.call import tensors_of
from dpnorm.provenance.tracer import RecordTracer
from tests.provenance.brute_force import BITS, assert_sound, by_row, scattered

TORCHVISION = {
    "resnet18": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenet_v3_small": 64,
    "squeezenet1_0": 64,
    "googlenet": 96,
    "inception_v3": 299,
    "shufflenet_v2_x0_5": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
    "vit_b_16": 224,
    "swin_t": 64,
    "swin_v2_t": 64,
    "maxvit_t": 224,
}
TIMM = {
    "mixer_s32_224": 224,
    "gmlp_ti16_224": 224,
    "nf_regnet_b0": 64,
    "dm_nfnet_f0": 64,
    "eca_resnet33ts": 64,
    "resnetv2_50d_evos": 64,
    "resnetv2_50d_gn": 64,
    "halonet26t": 256,
    "lambda_resnet26t": 128,
    "bat_resnext26ts": 256,
    "xcit_nano_12_p16_224": 224,
    "pvt_v2_b0": 64,
    "cait_xxs24_224": 224,
    "coat_tiny": 224,
    "levit_128s": 224,
    "poolformer_s12": 64,
    "skresnet18": 64,
    "resnest14d": 64,
    "ghostnet_100": 64,
    "volo_d1_224": 224,
}
QUICK = {"resnet18", "mobilenet_v3_small", "swin_t", "poolformer_s12", "levit_128s"}


def _sizes(table):
    slow = pytest.mark.slow
    return [pytest.param(n, s, marks=[] if n in QUICK else [slow]) for n, s in table.items()]


def _trace(model, *inputs):
    """Runs forward and backward; the masks of the outputs, and the tracer."""
    tracer = RecordTracer()
    for x in inputs:
        tracer.table.write(x, by_row(x))
    with tracer:
        outputs = [y for y in tensors_of(_plain(model(*inputs))) if y.is_floating_point()]
        loss = sum(y.square().sum() for y in outputs)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            tracer.phase = "backward"
            loss.backward()
    return [tracer.table.read(y) for y in outputs], tracer


def _plain(out):
    return list(out) if isinstance(out, tuple) else out


def _judge(model, *inputs, isolated=True):
    for mode in (True, False):
        masks, tracer = _trace(model.train(mode), *inputs)
        assert not [event.name for event in tracer.trace.of("unknown")]
        assert not tracer.trace.of("escape")
        active = mode and any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()
        )
        for mask in masks:
            rows = np.uint8(BITS[: len(mask)]).reshape(-1, *[1] * (mask.ndim - 1))
            assert (mask & rows == rows).all(), "a row does not see its own record"
            if isolated:
                assert bool((mask == rows).all()) is not active


@pytest.mark.parametrize(("name", "size"), _sizes(TORCHVISION))
def test_torchvision(name, size):
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    _judge(
        getattr(torchvision.models, name)(weights=None, **options), torch.randn(2, 3, size, size)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "size"), _sizes(TIMM))
def test_timm(name, size):
    timm = pytest.importorskip("timm")
    _judge(timm.create_model(name, pretrained=False), torch.randn(2, 3, size, size))


class _First(nn.Module):
    """The first output of a layer, called with the same input several times."""

    def __init__(self, layer, times=1):
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x):
        out = self.layer(*[x] * self.times)
        return out[0] if isinstance(out, tuple) else out


LAYERS = {
    "encoder": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "encoder_norm_first": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "decoder": _First(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
    "attention": _First(nn.MultiheadAttention(8, 2, batch_first=True), 3),
    "lstm": _First(nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True, dropout=0.1)),
    "gru": _First(nn.GRU(8, 4, batch_first=True)),
    "rnn": _First(nn.RNN(8, 4, batch_first=True)),
    "hard": nn.Sequential(nn.Linear(8, 8), nn.Hardswish(inplace=True), nn.Hardsigmoid(), nn.CELU()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_sequence_layers_with_and_without_gradients(name):
    x = torch.randn(3, 5, 8)
    _judge(LAYERS[name], x)
    with torch.no_grad():
        _judge(LAYERS[name], x)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags(mode):
    tokens = torch.randint(0, 9, (3, 4))
    _judge(nn.EmbeddingBag(9, 5, mode=mode), tokens)


UNTAGGED = {
    "hardswish": F.hardswish,
    "hardswish_": lambda x: F.hardswish(x.clone(), inplace=True),
    "hardsigmoid": F.hardsigmoid,
    "celu": F.celu,
    "elu": F.elu,
    "leaky_relu_": lambda x: F.leaky_relu(x.clone(), 0.1, inplace=True),
    "mish": F.mish,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
    "where": lambda x: torch.where(x > 0, x, x.exp()),
}


@pytest.mark.parametrize("name", UNTAGGED)
def test_elementwise_operators_without_the_tag(name):
    x = torch.randn(3, 4).double()

    def function(x):
        leaf = x.requires_grad_()
        out = UNTAGGED[name](leaf * 1)
        return out, *torch.autograd.grad(out.sum(), leaf)

    for mask in (by_row(x), by_row(x, 1), scattered(x)):
        assert_sound(function, [x], [mask])
