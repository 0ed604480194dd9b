"""Models whose records are isolated, though they look like those in the coupled zoo."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.detection.coupled_zoo import (
    Case,
    Images,
    Wrapped,
    averaged,
    classifier,
    flat,
    image,
    labels,
    sequence,
    summed,
)

CASES: dict[str, Case] = {}


def function_case(name: str, inputs: Callable[[], Any] = flat) -> Callable:
    def add(function: Callable[[Tensor], Tensor]) -> Callable:
        CASES[name] = Case(lambda: Wrapped(function), inputs)
        return function

    return add


def module_case(name: str, inputs: Callable[[], Any] = flat, **options: Any) -> Callable:
    def add(build: Callable[[], nn.Module]) -> Callable:
        CASES[name] = Case(build, inputs, **options)
        return build

    return add


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
    CASES[_name] = Case(lambda _layer=_layer: Images(_layer()), image)


@function_case("minus a record's own mean")
def _(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


@function_case("plus noise")
def _(x: Tensor) -> Tensor:
    return x + torch.randn_like(x) + torch.empty_like(x).normal_()


@function_case("one coin for all")
def _(x: Tensor) -> Tensor:
    return x * (torch.rand(()) > 0.5)


@function_case("a layer skipped when a coin says so")
def _(x: Tensor) -> Tensor:
    return x if torch.rand(1).item() < 0.5 else x * 2


@function_case("stochastic depth by record")
def _(x: Tensor) -> Tensor:
    return x * torch.empty(len(x), 1).bernoulli_(0.8) / 0.8


@function_case("time first and back")
def _(x: Tensor) -> Tensor:
    return x.T.contiguous().softmax(0).T


@function_case("one record after the other")
def _(x: Tensor) -> Tensor:
    return torch.stack([row.softmax(0) for row in x])


@function_case("all records as channels of one sample")
def _(x: Tensor) -> Tensor:
    n = len(x)
    return F.conv1d(x.view(1, n, 8), torch.ones(n, 1, 3), padding=1, groups=n).view(n, 8)


@function_case("written in place, row by row")
def _(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for i in range(len(x)):
        out[i] = x[i] * 2
    return out


@function_case("slices written in place")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, ::2] *= 2
    x[:, 1::2].add_(1)
    return x


@function_case("sorted within a record")
def _(x: Tensor) -> Tensor:
    return x.sort(1).values + x.topk(8, dim=1).values + x.cumsum(1)


@function_case("gathered within a record")
def _(x: Tensor) -> Tensor:
    return x.gather(1, x.argsort(1)) + torch.where(x > 0, x, -x)


@function_case("vmap over records")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: row - row.mean())(x)


@function_case("vmap of a gradient")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda row: row.square().sum()))(x)


@function_case("checkpointed")
def _(x: Tensor) -> Tensor:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: y - y.mean(1, keepdim=True), x, use_reentrant=False)


@function_case("repeated and folded back")
def _(x: Tensor) -> Tensor:
    return x.repeat_interleave(3, 0).view(-1, 3, 8).mean(1)


@function_case("concatenated with constants")
def _(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 2)], 1)[:, :8]


@function_case("Fourier transform of a record")
def _(x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x, dim=1), n=8, dim=1)


@function_case("a batch of matrices inverted")
def _(x: Tensor) -> Tensor:
    matrices = x[:, :, None] * x[:, None, :] + torch.eye(8)
    return torch.linalg.solve(matrices, x)


@function_case("batch norm on a weight")
def _(x: Tensor) -> Tensor:
    weight = torch.ones(8, 8) + torch.eye(8)
    return F.linear(x, F.batch_norm(weight, None, None, training=True))


@function_case("instance norm by hand, as channels")
def _(x: Tensor) -> Tensor:
    return F.batch_norm(x.view(1, -1, 8), None, None, training=True).view(x.shape)


@function_case("profiled")
def _(x: Tensor) -> Tensor:
    with torch.profiler.record_function("mine"):
        return x * 2


@function_case("clamped by constants")
def _(x: Tensor) -> Tensor:
    return x.clamp(-1, 1).nan_to_num().masked_fill(x > 3, 0.0)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


@function_case("a custom function by element")
def _(x: Tensor) -> Tensor:
    return Doubled.apply(x)


@module_case("attention, batch first", sequence)
class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@module_case("LSTM, batch first", sequence)
class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@module_case("GRU, batch first, both ways", sequence)
class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0].mean(1)


@module_case("a transformer layer", sequence)
def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


@module_case("a step counter")
class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.linear(x)


@module_case("tokens", lambda: torch.randint(0, 20, (6, 5)))
class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        keep = (tokens != 0).float()[..., None]
        x = self.embedding(tokens) * keep
        return self.head(x.sum(1) / keep.sum(1).clamp(min=1))


@module_case("a bag of tokens", lambda: torch.randint(0, 20, (6, 5)))
def bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(20, 8, mode="mean"), nn.Linear(8, 3))


@module_case("positions added as a parameter", sequence)
class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.table).mean(1))


@module_case("a time axis folded into the batch", sequence)
class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(0, 1)).view(x.shape).mean(1)


@module_case("a dict of outputs")
class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x), "mean": x.mean(1)}


@module_case("a shared layer")
def shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer)


@module_case("a forward hook by record")
def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].register_forward_hook(lambda module, args, out: out - out.mean(1, keepdim=True))
    return model


@module_case("all frozen")
def frozen() -> nn.Module:
    return classifier().requires_grad_(False)


@module_case("no parameters")
def bare() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.LayerNorm(8, elementwise_affine=False))


@module_case("double precision", lambda: flat().double())
def double() -> nn.Module:
    return classifier().double()


CASES["loss: averaged"] = Case(classifier, flat, averaged, labels)
CASES["loss: summed told sum"] = Case(classifier, flat, summed, labels, reduction="sum")
CASES["loss: squared"] = Case(
    classifier, flat, lambda o, t: F.mse_loss(o, F.one_hot(t, 3).float()), labels
)
CASES["loss: smoothed"] = Case(
    classifier, flat, lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1), labels
)
CASES["loss: binary"] = Case(
    classifier,
    flat,
    lambda o, t: F.binary_cross_entropy_with_logits(o, F.one_hot(t, 3).float()),
    labels,
)
CASES["loss: focal"] = Case(
    classifier,
    flat,
    lambda o, t: (
        (1 - o.softmax(1).gather(1, t[:, None])[:, 0]).square()
        * F.cross_entropy(o, t, reduction="none")
    ).mean(),
    labels,
)
CASES["loss: weighted sum"] = Case(
    classifier,
    flat,
    lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([0.1, 1.0, 5.0]), reduction="sum"),
    labels,
    reduction="sum",
)
