"""Modules and losses whose records are isolated, though they look like coupled ones."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.detection.zoo.case import Case, Zoo, averaged, classifier, flat, labels, sequence, summed

ZOO = Zoo()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


@ZOO.function("a custom function by element")
def _(x: Tensor) -> Tensor:
    return Doubled.apply(x)


@ZOO.module("a custom function by element above parameters of the model")
class Above(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.shift = nn.Parameter(torch.randn(1, 8)), nn.Parameter(torch.randn(8))
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.inside, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = Doubled.apply(self.first(x + self.token))
        return self.last(Doubled.apply(F.linear(x, self.inside.weight) + self.shift))


@ZOO.module("attention, batch first", sequence)
class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@ZOO.module("LSTM, batch first", sequence)
class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@ZOO.module("GRU, batch first, both ways", sequence)
class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0].mean(1)


@ZOO.module("a transformer layer", sequence)
def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


@ZOO.module("a step counter")
class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.linear(x)


@ZOO.module("tokens", lambda: torch.randint(0, 20, (6, 5)))
class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        keep = (tokens != 0).float()[..., None]
        x = self.embedding(tokens) * keep
        return self.head(x.sum(1) / keep.sum(1).clamp(min=1))


@ZOO.module("a bag of tokens", lambda: torch.randint(0, 20, (6, 5)))
def bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(20, 8, mode="mean"), nn.Linear(8, 3))


@ZOO.module("positions added as a parameter", sequence)
class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.table).mean(1))


@ZOO.module("embedded positions", lambda: torch.randint(0, 20, (6, 5)))
class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.out = (
            nn.Embedding(20, 8),
            nn.Embedding(5, 8),
            nn.Linear(8, 3),
        )

    def forward(self, t: Tensor) -> Tensor:
        return self.out(self.tokens(t) + self.places(torch.arange(t.shape[1])))


@ZOO.module("a scale computed from constants")
class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.scale(torch.ones(2)).sigmoid())


@ZOO.module("an LSTM with time first, turned both ways", sequence)
class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.transpose(0, 1))[0][-1])


@ZOO.module("a time axis folded into the batch", sequence)
class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(0, 1)).view(x.shape).mean(1)


@ZOO.module("a dict of outputs")
class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x), "mean": x.mean(1)}


@ZOO.module("a shared layer")
def shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer)


@ZOO.module("a forward hook by record")
def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].register_forward_hook(lambda module, args, out: out - out.mean(1, keepdim=True))
    return model


@ZOO.module("all frozen")
def frozen() -> nn.Module:
    return classifier().requires_grad_(False)


@ZOO.module("no parameters")
def bare() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.LayerNorm(8, elementwise_affine=False))


@ZOO.module("double precision", lambda: flat().double())
def double() -> nn.Module:
    return classifier().double()


ZOO["loss: averaged"] = Case(classifier, flat, averaged, labels)
ZOO["loss: summed told sum"] = Case(classifier, flat, summed, labels, reduction="sum")
ZOO["loss: squared"] = Case(
    classifier, flat, lambda o, t: F.mse_loss(o, F.one_hot(t, 3).float()), labels
)
ZOO["loss: smoothed"] = Case(
    classifier, flat, lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1), labels
)
ZOO["loss: binary"] = Case(
    classifier,
    flat,
    lambda o, t: F.binary_cross_entropy_with_logits(o, F.one_hot(t, 3).float()),
    labels,
)
ZOO["loss: focal"] = Case(
    classifier,
    flat,
    lambda o, t: (
        (1 - o.softmax(1).gather(1, t[:, None])[:, 0]).square()
        * F.cross_entropy(o, t, reduction="none")
    ).mean(),
    labels,
)
ZOO["loss: weighted sum"] = Case(
    classifier,
    flat,
    lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([0.1, 1.0, 5.0]), reduction="sum"),
    labels,
    reduction="sum",
)
