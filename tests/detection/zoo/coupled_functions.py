"""Layers and functions in which one record moves another, as people write them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.detection.zoo.case import Case, Images, Wrapped, Zoo, flat, image, sequence

ZOO = Zoo()

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
    ZOO[_name] = Case(lambda _layer=_layer: Images(_layer()), image)
ZOO["BatchNorm1d"] = Case(lambda: Wrapped(nn.BatchNorm1d(8)), flat)
ZOO["BatchNorm1d on sequences"] = Case(
    lambda: nn.Sequential(nn.Conv1d(5, 5, 1), nn.BatchNorm1d(5)), sequence
)
ZOO["BatchNorm3d"] = Case(
    lambda: nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3)),
    lambda: torch.randn(5, 2, 3, 3, 3),
)


@ZOO.function("F.batch_norm without buffers")
def _(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


@ZOO.function("minus the mean")
def _(x: Tensor) -> Tensor:
    return x - x.mean(0)


@ZOO.function("minus the mean, einsum")
def _(x: Tensor) -> Tensor:
    return x - torch.einsum("nd->d", x) / 7.0


@ZOO.function("divided by the batch's norm")
def _(x: Tensor) -> Tensor:
    return x / x.norm()


@ZOO.function("softmax over the batch")
def _(x: Tensor) -> Tensor:
    return x.softmax(0)


@ZOO.function("default softmax of one dimension")
def _(x: Tensor) -> Tensor:
    return x * F.softmax(x.sum(1), dim=0)[:, None]


@ZOO.function("cumulative sum over the batch")
def _(x: Tensor) -> Tensor:
    return x.cumsum(0)


@ZOO.function("sorted over the batch")
def _(x: Tensor) -> Tensor:
    return x.sort(0).values


@ZOO.function("rolled")
def _(x: Tensor) -> Tensor:
    return x.roll(1, 0)


@ZOO.function("flipped")
def _(x: Tensor) -> Tensor:
    return x.flip(0)


@ZOO.function("mixup")
def _(x: Tensor) -> Tensor:
    return 0.7 * x + 0.3 * x[torch.randperm(len(x))]


@ZOO.function("shuffled")
def _(x: Tensor) -> Tensor:
    return x[torch.randperm(len(x))]


@ZOO.function("shifted by one with a loop")
def _(x: Tensor) -> Tensor:
    return torch.stack([x[i] + x[i - 1] for i in range(len(x))])


@ZOO.function("attention over the batch")
def _(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


@ZOO.function("gram matrix")
def _(x: Tensor) -> Tensor:
    return x + (x @ x.T) @ x * 0.01


@ZOO.function("graph with nearest neighbours")
def _(x: Tensor) -> Tensor:
    nearest = torch.cdist(x, x).topk(2, largest=False).indices
    return x + x[nearest].mean(1)


@ZOO.function("centred by the median")
def _(x: Tensor) -> Tensor:
    return x - x.median(0).values


@ZOO.function("scaled by the maximum")
def _(x: Tensor) -> Tensor:
    return x / x.abs().max()


@ZOO.function("standardized")
def _(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-5)


@ZOO.function("whitened by an eigendecomposition")
def _(x: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(x.T @ x / len(x) + torch.eye(8))
    return x @ vectors @ torch.diag(values.rsqrt()) @ vectors.T


@ZOO.function("control flow on the batch's maximum")
def _(x: Tensor) -> Tensor:
    return x / 10 if x.abs().max() > 5 else x


@ZOO.function("divided by a Python number")
def _(x: Tensor) -> Tensor:
    return x / float(x.detach().std())


@ZOO.function("through numpy")
def _(x: Tensor) -> Tensor:
    return x - torch.from_numpy(np.asarray(x.detach().numpy().mean(0)))


@ZOO.function("through a list")
def _(x: Tensor) -> Tensor:
    rows = x.detach().tolist()
    return x + sum(row[0] for row in rows)


@ZOO.function("in-place minus the mean")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x[:] -= x.mean(0)
    return x


@ZOO.function("a view written in place")
def _(x: Tensor) -> Tensor:
    x = x.clone()
    x.view(-1)[8:] += x.detach().clone().view(-1)[:-8]
    return x


@ZOO.function("first record added to all")
def _(x: Tensor) -> Tensor:
    return x + x[:1]


@ZOO.function("only a detached mean")
def _(x: Tensor) -> Tensor:
    return x - x.detach().mean(0)


@ZOO.function("index_add across records")
def _(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, torch.arange(len(x)) // 2 * 2, x) + x


@ZOO.function("argmax of the batch selects")
def _(x: Tensor) -> Tensor:
    return x + x[x.sum(1).argmax()]


@ZOO.function("Fourier transform over the batch")
def _(x: Tensor) -> Tensor:
    return torch.fft.fft(x, dim=0).real


@ZOO.function("reshaped so that records mix")
def _(x: Tensor) -> Tensor:
    return x.reshape(-1).reshape(8, -1).softmax(1).reshape(len(x), 8)


@ZOO.function("transposed and reshaped")
def _(x: Tensor) -> Tensor:
    return x.T.reshape(x.shape)


@ZOO.function("convolution over the batch")
def _(x: Tensor) -> Tensor:
    return F.conv1d(x.T[None], torch.ones(8, 8, 3) / 24, padding=1)[0].T


@ZOO.function("average pooling over the batch")
def _(x: Tensor) -> Tensor:
    return F.avg_pool1d(x.T[None], 3, 1, 1)[0].T


@ZOO.function("divided by the number of records")
def _(x: Tensor) -> Tensor:
    return x / len(x)


@ZOO.function("unique values")
def _(x: Tensor) -> Tensor:
    return x + len(torch.unique(x.detach().round())) * 0.1


@ZOO.function("number of positive entries")
def _(x: Tensor) -> Tensor:
    return x / torch.nonzero(x > 0).shape[0]


@ZOO.function("boolean selection by a record's value")
def _(x: Tensor) -> Tensor:
    chosen = x[x[:, 0] > x[:, 0].median()]
    return x + chosen.mean(0)


@ZOO.function("quantile clipping")
def _(x: Tensor) -> Tensor:
    return x.clamp(max=x.detach().quantile(0.9))


@ZOO.function("two of six records")
def _(x: Tensor) -> Tensor:
    if len(x) < 6:
        return x
    return torch.cat([x[:2], x[2:3] + x[4:5], x[3:]])
