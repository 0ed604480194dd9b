"""Models whose records are isolated, and that ask more of an engine than a plain network does."""

import torch
from torch import nn

from dpnorm.norms import (
    EvoNormS0,
    FrozenBatchNorm,
    PrivateBatchNorm2d,
    PublicBatchNorm2d,
    RecordRMSNorm,
    ScaleNorm,
    WeightStandardizedConv,
    refresh_statistics,
)

RECORDS = 5


class Block(nn.Module):
    """A residual block that adds in place, with in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)])
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norms[1](self.second(self.act(self.norms[0](self.first(x)))))
        out += x
        return self.act(out)


class Windows(nn.Module):
    """Attention over windows that are folded into the batch, with a bias table and a buffer."""

    def __init__(self, *, minor: bool = False) -> None:
        super().__init__()
        self.minor = minor
        self.mix, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.inner = Table()

    def forward(self, x):  # (B, 4, 6): two windows of two
        n = len(x)
        if self.minor:
            rows = x.view(n, 2, 2, 6).transpose(0, 1).reshape(2 * n, 2, 6)
        else:
            rows = x.view(2 * n, 2, 6)
        rows = self.inner(self.norm(torch.tanh(self.mix(rows))))
        if self.minor:
            rows = rows.view(2, n, 2, 6).transpose(0, 1)
        return self.head(rows.reshape(n, 4, 6).mean(1))


class Table(nn.Module):
    """Owns a parameter beside a buffer of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5))
        self.register_buffer("index", torch.tensor([3, 1]))
        self.lin = nn.Linear(6, 6)

    def forward(self, x):
        return self.lin(x) + self.table[self.index][None, :, None]


class Positions(nn.Module):
    """Embeds positions, which are no record's, and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(9, 6), nn.Embedding(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, t):
        return self.head(torch.tanh(self.tokens(t) + self.places(torch.arange(4))).mean(1))


class TimeFirst(nn.Module):
    """A layer that takes the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        out, (hidden, _) = self.rnn(x.transpose(0, 1))
        return self.head(out[-1] + hidden[0])


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.layer(torch.tanh(self.layer(x.flatten(1)[:, :6]))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Permuted(nn.Module):
    """Convolves what was made with channels last, as networks with a LayerNorm over them do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.mix(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return self.head(torch.tanh(x).mean((2, 3)))


class Viewed(nn.Module):
    """Gives a view, of which nobody knows who else has what it is a view of."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features))

    def forward(self, x):
        return (x * self.weight).transpose(1, 2)


def pictures():
    return torch.randn(RECORDS, 4, 5, 5)


def sequences():
    return torch.randn(RECORDS, 4, 6)


def head(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


class Started(nn.Module):
    """A recurrent layer with an explicit state of zeros, as long as the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x, torch.zeros(1, len(x), 5))[0][:, -1])


class Masked(nn.Module):
    """Attention with a constant mask of padding, as long as the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        out, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        return self.head(out.mean(1))


class Twice(nn.Module):
    """A module that names one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.randn(6)), nn.Linear(6, 3)
        self.inner = Doubled()

    def forward(self, x):
        out = self.inner(x.mean(1) * self.scale)
        return self.head(out["features"] + out["logits"])


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = torch.tanh(x * self.scale)
        return {"features": x, "logits": x}


def refreshed():
    model = head(nn.Conv2d(4, 4, 3), PublicBatchNorm2d(4))
    refresh_statistics(model, torch.randn(6, 4, 5, 5))
    return model


NORMS = {
    "frozen norm": lambda: head(nn.Conv2d(4, 4, 3), FrozenBatchNorm(4)),
    "private norm": lambda: head(nn.Conv2d(4, 4, 3), PrivateBatchNorm2d(4)),
    "private norm without affine": lambda: head(
        nn.Conv2d(4, 4, 3), PrivateBatchNorm2d(4, affine=False)
    ),
    "private norm with a record's share": lambda: head(
        nn.Conv2d(4, 4, 3), PrivateBatchNorm2d(4, record_share=0.5)
    ),
    "public norm": refreshed,
    "RMS norm": lambda: head(nn.Conv2d(4, 4, 3), RecordRMSNorm(4)),
    "scale norm": lambda: head(nn.Conv2d(4, 4, 3), ScaleNorm(4)),
    "EvoNorm-S0": lambda: head(nn.Conv2d(4, 4, 3), EvoNormS0(4, groups=2)),
    "weight standardization": lambda: head(WeightStandardizedConv(nn.Conv2d(4, 4, 3))),
}

CASES = {
    **{name: (build, pictures) for name, build in NORMS.items()},
    "a state of zeros": (Started, sequences),
    "a mask of padding": (Masked, sequences),
    "one output twice": (Twice, sequences),
    "a bag of tokens": (
        lambda: nn.Sequential(nn.EmbeddingBag(9, 6), nn.Linear(6, 3)),
        lambda: torch.randint(0, 9, (RECORDS, 4)),
    ),
    "in-place residual": (lambda: head(Block(), Block()), pictures),
    "rows of a linear layer that are written": (
        lambda: nn.Sequential(
            nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3)
        ),
        sequences,
    ),
    "an instance norm that is written": (
        lambda: nn.Sequential(
            nn.InstanceNorm1d(4, affine=True),
            nn.LeakyReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(24, 3),
        ),
        sequences,
    ),
    "BatchNorm in evaluation": (
        lambda: head(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4).eval()),
        pictures,
    ),
    "reflected padding": (
        lambda: head(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
        pictures,
    ),
    "grouped convolution": (lambda: head(nn.Conv2d(4, 4, 3, groups=2, stride=2)), pictures),
    "transposed convolution": (lambda: head(nn.ConvTranspose2d(4, 4, 3)), pictures),
    "windows record-major": (Windows, sequences),
    "windows record-minor": (lambda: Windows(minor=True), sequences),
    "convolution of a permuted tensor": (Permuted, pictures),
    "positions": (Positions, lambda: torch.randint(0, 9, (RECORDS, 4))),
    "padding": (
        lambda: nn.Sequential(nn.Embedding(9, 6, padding_idx=0), nn.Flatten(), nn.Linear(24, 3)),
        lambda: torch.randint(0, 9, (RECORDS, 4)),
    ),
    "time first": (TimeFirst, sequences),
    "shared and unused": (Shared, sequences),
    "attention": (Attention, sequences),
    "layer norm without bias": (
        lambda: nn.Sequential(nn.LayerNorm(6, bias=False), nn.Flatten(), nn.Linear(24, 3)),
        sequences,
    ),
    "weight norm": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(24, 3))
        ),
        sequences,
    ),
}
