"""Layers and functions whose records are isolated, though they look like coupled ones."""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.detection.zoo.case import Case, Images, Zoo, image, sequence

ZOO = Zoo()

for _name, _layer in {
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "LayerNorm on maps": lambda: nn.GroupNorm(1, 4),
    "InstanceNorm": lambda: nn.InstanceNorm2d(4),
    "InstanceNorm affine": lambda: nn.InstanceNorm2d(4, affine=True),
    "BatchNorm in eval": lambda: nn.BatchNorm2d(4).eval(),
    "BatchNorm frozen in eval": lambda: nn.BatchNorm2d(4).requires_grad_(False).eval(),
    "Dropout": lambda: nn.Dropout(0.3),
    "Dropout2d": lambda: nn.Dropout2d(0.3),
    "AlphaDropout": lambda: nn.AlphaDropout(0.3),
    "in-place ReLU": lambda: nn.ReLU(inplace=True),
    "max pooling": lambda: nn.MaxPool2d(2),
    "adaptive pooling": lambda: nn.AdaptiveAvgPool2d(3),
    "local response norm": lambda: nn.LocalResponseNorm(2),
    "upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "pixel shuffle": lambda: nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    "grouped convolution": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "circular padding": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "reflection padding": lambda: nn.ReflectionPad2d(1),
    "softmax over channels": lambda: nn.Softmax2d(),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
    "channel shuffle": lambda: nn.ChannelShuffle(2),
    "PReLU": lambda: nn.PReLU(4),
    "RReLU": lambda: nn.RReLU(),
}.items():
    ZOO[_name] = Case(lambda _layer=_layer: Images(_layer()), image)


@ZOO.function("minus a record's own mean")
def _(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


@ZOO.function("plus noise")
def _(x: Tensor) -> Tensor:
    return x + torch.randn_like(x) + torch.empty_like(x).normal_()


@ZOO.function("one coin for all")
def _(x: Tensor) -> Tensor:
    return x * (torch.rand(()) > 0.5)


@ZOO.function("a layer skipped when a coin says so")
def _(x: Tensor) -> Tensor:
    return x if torch.rand(1).item() < 0.5 else x * 2


@ZOO.function("a layer that a coin without a chance would mix")
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.rand(()) < 0.0 or torch.empty(()).bernoulli_(0.0) else x


@ZOO.function("a layer that a coin which always says so keeps apart")
def _(x: Tensor) -> Tensor:
    return x if torch.bernoulli(torch.ones(2)).all() else x - x.mean(0)


@ZOO.function("a logarithm that a coin decides, which is never at its end")
def _(x: Tensor) -> Tensor:
    return x * math.log(torch.rand(()).item())


@ZOO.function("scaled by Python's random number")
def _(x: Tensor) -> Tensor:
    return x * random.random()


@ZOO.function("scaled by numpy's random number")
def _(x: Tensor) -> Tensor:
    return x * np.random.rand()


@ZOO.function("stochastic depth by record")
def _(x: Tensor) -> Tensor:
    return x * torch.empty(len(x), 1).bernoulli_(0.8) / 0.8


@ZOO.function("time first and back")
def _(x: Tensor) -> Tensor:
    return x.T.contiguous().softmax(0).T


@ZOO.function("one record after the other")
def _(x: Tensor) -> Tensor:
    return torch.stack([row.softmax(0) for row in x])


@ZOO.function("all records as channels of one sample")
def _(x: Tensor) -> Tensor:
    n = len(x)
    return F.conv1d(x.view(1, n, 8), torch.ones(n, 1, 3), padding=1, groups=n).view(n, 8)


@ZOO.function("written in place, row by row")
def _(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for i in range(len(x)):
        out[i] = x[i] * 2
    return out


@ZOO.function("slices written in place")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, ::2] *= 2
    x[:, 1::2].add_(1)
    return x


@ZOO.function("sorted within a record")
def _(x: Tensor) -> Tensor:
    return x.sort(1).values + x.topk(8, dim=1).values + x.cumsum(1)


@ZOO.function("gathered within a record")
def _(x: Tensor) -> Tensor:
    return x.gather(1, x.argsort(1)) + torch.where(x > 0, x, -x)


@ZOO.function("vmap over records")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: row - row.mean())(x)


@ZOO.function("vmap of a gradient")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda row: row.square().sum()))(x)


@ZOO.function("checkpointed")
def _(x: Tensor) -> Tensor:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: y - y.mean(1, keepdim=True), x, use_reentrant=False)


@ZOO.function("repeated and folded back")
def _(x: Tensor) -> Tensor:
    return x.repeat_interleave(3, 0).view(-1, 3, 8).mean(1)


@ZOO.function("concatenated with constants")
def _(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 2)], 1)[:, :8]


@ZOO.function("Fourier transform of a record")
def _(x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x, dim=1), n=8, dim=1)


@ZOO.function("a batch of matrices inverted")
def _(x: Tensor) -> Tensor:
    matrices = x[:, :, None] * x[:, None, :] + torch.eye(8)
    return torch.linalg.solve(matrices, x)


@ZOO.function("batch norm on a weight")
def _(x: Tensor) -> Tensor:
    weight = torch.ones(8, 8) + torch.eye(8)
    return F.linear(x, F.batch_norm(weight, None, None, training=True))


@ZOO.function("instance norm by hand, as channels")
def _(x: Tensor) -> Tensor:
    return F.batch_norm(x.view(1, -1, 8), None, None, training=True).view(x.shape)


@ZOO.function("profiled")
def _(x: Tensor) -> Tensor:
    with torch.profiler.record_function("mine"):
        return x * 2


@ZOO.function("clamped by constants")
def _(x: Tensor) -> Tensor:
    return x.clamp(-1, 1).nan_to_num().masked_fill(x > 3, 0.0)


@ZOO.function("rows that are written", sequence)
def _(x: Tensor) -> Tensor:
    return x.relu_()


@ZOO.function("a part that is written", sequence)
def _(x: Tensor) -> Tensor:
    x[:, 1:].mul_(2.0)
    return x
