"""Modules and custom functions in which one record moves another, or state that is kept."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.detection.zoo.case import Case, Wrapped, Zoo, flat, four, sequence

ZOO = Zoo()


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


@ZOO.function("custom forward")
def _(x: Tensor) -> Tensor:
    return MixingForward.apply(x)


@ZOO.function("vmap over features")
def _(x: Tensor) -> Tensor:
    return torch.func.vmap(lambda column: column - column.mean(), 1, 1)(x)


@ZOO.function("checkpointed")
def _(x: Tensor) -> Tensor:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: y - y.mean(0), x, use_reentrant=False)


@ZOO.module("memory of the last batch")
class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(8, 8), torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) + self.last
        self.last = x.detach().mean(0)
        return x


@ZOO.module("running mean in a buffer, outputs per record")
class Observer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(0.1 * x.mean(0))
        return self.linear(x)


@ZOO.module("a codebook moved by the data")
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


@ZOO.module("batch_first forgotten in attention", sequence)
class WrongAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@ZOO.module("batch_first forgotten in an LSTM", sequence)
class WrongRecurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@ZOO.module("keeps every output", four)
class Hoarder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.outputs = nn.Linear(8, 8), []

    def forward(self, x: Tensor) -> Tensor:
        self.outputs.append(self.linear(x).detach())
        return self.linear(x)


@ZOO.module("mixes gradients below a parameter of its own", four)
class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gain = nn.Linear(8, 8), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * MixingBackward.apply(self.linear(x))


@ZOO.module("an object as output", four)
class Wordless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> SimpleNamespace:
        x = self.linear(x)
        return SimpleNamespace(logits=x - x.mean(0))


@ZOO.module("a forward hook that centres")
def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].register_forward_hook(lambda module, args, out: out - out.mean(0))
    return model


@ZOO.function("gradients mixed in a large batch only")
def _(x: Tensor) -> Tensor:
    return MixingBackward.apply(x) if len(x) > 4 else x


ZOO["custom backward"] = Case(
    lambda: Wrapped(MixingBackward.apply), lambda: flat(), lambda o, t: F.mse_loss(o, t), flat
)


class UnitGradient(torch.autograd.Function):
    """Gives back a gradient of length one, whatever the records sum up to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / grad.norm()


@ZOO.module("a gradient normalized where no record runs", four)
class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * UnitGradient.apply(self.scale(torch.ones(2))))


@ZOO.module("a scale by the last batch's gradient", four)
class Graded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.scale = nn.Linear(8, 3), torch.ones(3, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        grad = self.scale.grad
        return self.out(x) * self.scale * (1.0 if grad is None else 1 + 50 * grad.mean())


@ZOO.function("gradients mixed behind rows that are written", sequence)
def _(x: Tensor) -> Tensor:
    return MixingBackward.apply(x.relu_())


@ZOO.function("gradients mixed behind a part that is written", sequence)
def _(x: Tensor) -> Tensor:
    x[:, 1:].mul_(2.0)
    return MixingBackward.apply(x)


class Viewed(nn.Module):
    """Gives a view of what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight)[:, ::2].transpose(1, 2)


class Written(nn.Module):
    """Writes what a layer gave, and mixes gradients behind it."""

    def __init__(self, first: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(MixingBackward.apply(self.first(x).relu_()))


@ZOO.module("gradients mixed behind a view that is written", sequence)
def _() -> nn.Module:
    return Written(Viewed(), nn.Linear(3, 2))


@ZOO.module("gradients mixed behind an instance norm that is written", sequence)
def _() -> nn.Module:
    return Written(nn.InstanceNorm1d(5, affine=True), nn.Linear(8, 2))


class Reshaped(nn.Module):
    """Gives another view of what it is given, and has a parameter elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@ZOO.module("gradients mixed behind rows that are written and viewed by another module", sequence)
def _() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.viewed = nn.Linear(8, 4), Reshaped()
            self.last = nn.Linear(20, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(MixingBackward.apply(self.viewed(self.first(x).relu_())))

    return Net()


class Own(nn.Module):
    """A parameter of its own, and what it makes of it handed over in some way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor, places: list[Tensor]) -> Any:
        made = x @ self.weight
        places.append(made)
        return frozenset([made])


class Unread(nn.Module):
    """Mixes gradients in front of a parameter whose module's output is not read there."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.own, self.last = way, Own(), nn.Linear(8, 3)
        self.inside = nn.Sequential(nn.Linear(8, 8))
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "handed over":
            places: list[Tensor] = []
            self.own(x, places)
            made = places.pop()
        elif self.way == "in a set":
            (made,) = self.own(x, [])
        elif self.way == "of a module that does not run":
            made = F.linear(x, self.inside[0].weight)
        else:
            made = x @ self.weight
        if self.way == "of the model, behind a hook":
            made.register_hook(lambda gradient: gradient - gradient.mean(0))
            return self.last(made)
        return self.last(MixingBackward.apply(made))


UNREAD = {
    f"gradients mixed before a parameter {way}": way
    for way in (
        "of the model",
        "of the model, behind a hook",
        "of a module that does not run",
        "handed over",
        "in a set",
    )
}
for _name, _way in UNREAD.items():
    ZOO[_name] = Case(lambda _way=_way: Unread(_way), four)
