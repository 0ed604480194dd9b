"""Models in which one record moves another, as people write them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model, its inputs, and with a criterion also targets."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    criterion: Any = None
    targets: Callable[[], Any] | None = None
    reduction: str = "mean"
    options: dict = field(default_factory=dict)


CASES: dict[str, Case] = {}


def flat(n: int = 6, features: int = 8) -> Tensor:
    return torch.randn(n, features)


def image(n: int = 6, channels: int = 4, size: int = 6) -> Tensor:
    return torch.randn(n, channels, size, size)


def sequence(n: int = 6, steps: int = 5, features: int = 8) -> Tensor:
    return torch.randn(n, steps, features)


class Wrapped(nn.Module):
    """A linear layer, the function, a linear layer: what is tested stands between parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(features, features), nn.Linear(features, features)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


class Images(nn.Module):
    """A convolution, the layer, a pooled classifier."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer, self.head = nn.Conv2d(4, 4, 3, padding=1), layer, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.conv(x)).mean((2, 3)))


def function_case(name: str) -> Callable:
    def add(function: Callable[[Tensor], Tensor]) -> Callable:
        CASES[name] = Case(lambda: Wrapped(function), flat)
        return function

    return add


def module_case(name: str, inputs: Callable[[], Any] = flat, **options: Any) -> Callable:
    def add(build: Callable[[], nn.Module]) -> Callable:
        CASES[name] = Case(build, inputs, **options)
        return build

    return add


for _name, _layer in {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "BatchNorm2d without affine": lambda: nn.BatchNorm2d(4, affine=False),
    "BatchNorm2d with frozen affine": lambda: nn.BatchNorm2d(4).requires_grad_(False),
    "BatchNorm2d untracked": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "BatchNorm2d untracked in eval": lambda: nn.BatchNorm2d(4, track_running_stats=False).eval(),
    "BatchNorm2d momentum None": lambda: nn.BatchNorm2d(4, momentum=None),
    "SyncBatchNorm": lambda: nn.BatchNorm2d(4),
    "InstanceNorm tracked": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "InstanceNorm tracked and affine": lambda: nn.InstanceNorm2d(
        4, affine=True, track_running_stats=True
    ),
}.items():
    CASES[_name] = Case(lambda _layer=_layer: Images(_layer()), image)
CASES["BatchNorm1d"] = Case(lambda: Wrapped(nn.BatchNorm1d(8)), flat)
CASES["BatchNorm1d on sequences"] = Case(
    lambda: nn.Sequential(nn.Conv1d(5, 5, 1), nn.BatchNorm1d(5)), sequence
)
CASES["BatchNorm3d"] = Case(
    lambda: nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3)),
    lambda: torch.randn(5, 2, 3, 3, 3),
)


@function_case("F.batch_norm without buffers")
def _(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


@function_case("minus the mean")
def _(x: Tensor) -> Tensor:
    return x - x.mean(0)


@function_case("minus the mean, einsum")
def _(x: Tensor) -> Tensor:
    return x - torch.einsum("nd->d", x) / 7.0


@function_case("divided by the batch's norm")
def _(x: Tensor) -> Tensor:
    return x / x.norm()


@function_case("softmax over the batch")
def _(x: Tensor) -> Tensor:
    return x.softmax(0)


@function_case("default softmax of one dimension")
def _(x: Tensor) -> Tensor:
    return x * F.softmax(x.sum(1), dim=0)[:, None]


@function_case("cumulative sum over the batch")
def _(x: Tensor) -> Tensor:
    return x.cumsum(0)


@function_case("sorted over the batch")
def _(x: Tensor) -> Tensor:
    return x.sort(0).values


@function_case("rolled")
def _(x: Tensor) -> Tensor:
    return x.roll(1, 0)


@function_case("flipped")
def _(x: Tensor) -> Tensor:
    return x.flip(0)


@function_case("mixup")
def _(x: Tensor) -> Tensor:
    return 0.7 * x + 0.3 * x[torch.randperm(len(x))]


@function_case("shuffled")
def _(x: Tensor) -> Tensor:
    return x[torch.randperm(len(x))]


@function_case("shifted by one with a loop")
def _(x: Tensor) -> Tensor:
    return torch.stack([x[i] + x[i - 1] for i in range(len(x))])


@function_case("attention over the batch")
def _(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


@function_case("gram matrix")
def _(x: Tensor) -> Tensor:
    return x + (x @ x.T) @ x * 0.01


@function_case("graph with nearest neighbours")
def _(x: Tensor) -> Tensor:
    nearest = torch.cdist(x, x).topk(2, largest=False).indices
    return x + x[nearest].mean(1)


@function_case("centred by the median")
def _(x: Tensor) -> Tensor:
    return x - x.median(0).values


@function_case("scaled by the maximum")
def _(x: Tensor) -> Tensor:
    return x / x.abs().max()


@function_case("standardized")
def _(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-5)


@function_case("whitened by an eigendecomposition")
def _(x: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(x.T @ x / len(x) + torch.eye(8))
    return x @ vectors @ torch.diag(values.rsqrt()) @ vectors.T


@function_case("control flow on the batch's maximum")
def _(x: Tensor) -> Tensor:
    return x / 10 if x.abs().max() > 5 else x


@function_case("divided by a Python number")
def _(x: Tensor) -> Tensor:
    return x / float(x.detach().std())


@function_case("through numpy")
def _(x: Tensor) -> Tensor:
    return x - torch.from_numpy(np.asarray(x.detach().numpy().mean(0)))


@function_case("through a list")
def _(x: Tensor) -> Tensor:
    rows = x.detach().tolist()
    return x + sum(row[0] for row in rows)


@function_case("in-place minus the mean")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x[:] -= x.mean(0)
    return x


@function_case("a view written in place")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x.view(-1)[8:] += x.detach().clone().view(-1)[:-8]
    return x


@function_case("first record added to all")
def _(x: Tensor) -> Tensor:
    return x + x[:1]


@function_case("only a detached mean")
def _(x: Tensor) -> Tensor:
    return x - x.detach().mean(0)


@function_case("index_add across records")
def _(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, torch.arange(len(x)) // 2 * 2, x) + x


@function_case("argmax of the batch selects")
def _(x: Tensor) -> Tensor:
    return x + x[x.sum(1).argmax()]


@function_case("Fourier transform over the batch")
def _(x: Tensor) -> Tensor:
    return torch.fft.fft(x, dim=0).real


@function_case("reshaped so that records mix")
def _(x: Tensor) -> Tensor:
    return x.reshape(-1).reshape(8, -1).softmax(1).reshape(len(x), 8)


@function_case("transposed and reshaped")
def _(x: Tensor) -> Tensor:
    return x.T.reshape(x.shape)


@function_case("convolution over the batch")
def _(x: Tensor) -> Tensor:
    return F.conv1d(x.T[None], torch.ones(8, 8, 3) / 24, padding=1)[0].T


@function_case("average pooling over the batch")
def _(x: Tensor) -> Tensor:
    return F.avg_pool1d(x.T[None], 3, 1, 1)[0].T


@function_case("divided by the number of records")
def _(x: Tensor) -> Tensor:
    return x / len(x)


@function_case("unique values")
def _(x: Tensor) -> Tensor:
    return x + len(torch.unique(x.detach().round())) * 0.1


@function_case("number of positive entries")
def _(x: Tensor) -> Tensor:
    return x / torch.nonzero(x > 0).shape[0]


@function_case("boolean selection by a record's value")
def _(x: Tensor) -> Tensor:
    chosen = x[x[:, 0] > x[:, 0].median()]
    return x + chosen.mean(0)


@function_case("quantile clipping")
def _(x: Tensor) -> Tensor:
    return x.clamp(max=x.detach().quantile(0.9))


def four() -> Tensor:
    return flat(4)


def four_case(name: str) -> Callable:
    """On four records nothing but the masks and the quick probe looks."""

    def add(function: Callable[[Tensor], Tensor]) -> Callable:
        CASES[name] = Case(lambda: Wrapped(function), four)
        return function

    return add


@function_case("two of six records")
def _(x: Tensor) -> Tensor:
    if len(x) < 6:
        return x
    return torch.cat([x[:2], x[2:3] + x[4:5], x[3:]])


@function_case("gradients mixed in a large batch only")
def _(x: Tensor) -> Tensor:
    return MixingBackward.apply(x) if len(x) > 4 else x


@four_case("a tensor made of a record's elements")
def _(x: Tensor) -> Tensor:
    return x + torch.tensor(list(x.detach()[0]))


@four_case("a view in numpy that is filled later")
def _(x: Tensor) -> Tensor:
    held = torch.zeros(8)
    view = held.numpy()
    held.copy_(x.detach()[0])
    return x + torch.from_numpy(view)


@four_case("split at a place that a record chooses")
def _(x: Tensor) -> Tensor:
    place = (x.detach()[0, :1].abs() * 5).long().clamp(1, 7)
    return x * torch.tensor_split(x, place, 1)[0].shape[1]


@four_case("through dlpack")
def _(x: Tensor) -> Tensor:
    capsule = torch.utils.dlpack.to_dlpack(x.detach()[0] * 1)
    return x + torch.utils.dlpack.from_dlpack(capsule)


@four_case("computed in a thread")
def _(x: Tensor) -> Tensor:
    import threading

    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(x.detach()[0] * 1))
    thread.start()
    thread.join()
    return x + results[0]


@four_case("a masked tensor")
def _(x: Tensor) -> Tensor:
    from torch.masked import masked_tensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # masked tensors call themselves a prototype
        held = masked_tensor(x.detach(), torch.ones_like(x, dtype=torch.bool))
        return x + held.get_data()[0]


@four_case("first record added to all four")
def _(x: Tensor) -> Tensor:
    return x + x[:1]


@four_case("noise as large as the batch")
def _(x: Tensor) -> Tensor:
    return x + torch.randn_like(x) * len(x)


@four_case("mixed when a coin says so")
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.rand(()) < 0.3 else x


@four_case("mixed when numpy's coin says so")
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if np.random.rand() < 0.3 else x


@four_case("a permutation of two")
def _(x: Tensor) -> Tensor:
    return torch.cat([x[:2][torch.randperm(2)], x[2:]])


class MixingBackward(torch.autograd.Function):
    """Leaves the forward pass alone and mixes gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad - grad.mean(0)


class MixingForward(torch.autograd.Function):
    """Mixes in a custom forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x - x.mean(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@function_case("custom forward")
def _(x: Tensor) -> Tensor:
    return MixingForward.apply(x)


@function_case("vmap over features")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(lambda column: column - column.mean(), 1, 1)(x)


@function_case("checkpointed")
def _(x: Tensor) -> Tensor:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: y - y.mean(0), x, use_reentrant=False)


@module_case("memory of the last batch")
class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(8, 8), torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) + self.last
        self.last = x.detach().mean(0)
        return x


@module_case("running mean in a buffer, outputs per record")
class Observer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(0.1 * x.mean(0))
        return self.linear(x)


@module_case("a codebook moved by the data")
class Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.codes = nn.Parameter(torch.randn(3, 8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        with torch.no_grad():
            self.codes[torch.cdist(x, self.codes).argmin(1)] += 0.1
        return x


@module_case("batch_first forgotten in attention", sequence)
class WrongAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@module_case("batch_first forgotten in an LSTM", sequence)
class WrongRecurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@module_case("keeps every output", four)
class Hoarder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.outputs = nn.Linear(8, 8), []

    def forward(self, x: Tensor) -> Tensor:
        self.outputs.append(self.linear(x).detach())
        return self.linear(x)


@module_case("mixes gradients below a parameter of its own", four)
class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gain = nn.Linear(8, 8), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * MixingBackward.apply(self.linear(x))


@module_case("an object as output", four)
class Wordless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> SimpleNamespace:
        x = self.linear(x)
        return SimpleNamespace(logits=x - x.mean(0))


@module_case("a forward hook that centres")
def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].register_forward_hook(lambda module, args, out: out - out.mean(0))
    return model


def weighted(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, weight=torch.tensor([0.1, 1.0, 5.0]))


def contrastive(output: Tensor, target: Tensor) -> Tensor:
    unit = F.normalize(output)
    return F.cross_entropy(unit @ unit.T / 0.1, torch.arange(len(output)))


def hardest(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none").topk(3).values.mean()


def ignoring(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, ignore_index=0)


def selecting(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output[target > 0], target[target > 0])


def batch_hard(output: Tensor, target: Tensor) -> Tensor:
    distance = torch.cdist(output, output)
    same = target[:, None] == target
    far = torch.where(same, distance, distance.new_tensor(-1)).amax(1)
    near = torch.where(same, distance.new_tensor(1e9), distance).amin(1)
    return F.relu(far - near + 1).mean()


def summed(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="sum")


def averaged(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


for _loss in (weighted, contrastive, hardest, ignoring, selecting, batch_hard, summed):
    CASES[f"loss: {_loss.__name__}"] = Case(classifier, flat, _loss, labels)
CASES["loss: averaged told sum"] = Case(classifier, flat, averaged, labels, reduction="sum")
CASES["custom backward"] = Case(
    lambda: Wrapped(MixingBackward.apply), lambda: flat(), lambda o, t: F.mse_loss(o, t), flat
)
