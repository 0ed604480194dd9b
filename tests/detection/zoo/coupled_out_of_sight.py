"""Functions that couple four records where only masks and the quick probe look."""

import warnings

import numpy as np
import torch
from torch import Tensor

from tests.detection.zoo.case import Zoo, four

ZOO = Zoo()


@ZOO.function("a tensor made of a record's elements", four)
def _(x: Tensor) -> Tensor:
    return x + torch.tensor(list(x.detach()[0]))


@ZOO.function("a view in numpy that is filled later", four)
def _(x: Tensor) -> Tensor:
    held = torch.zeros(8)
    view = held.numpy()
    held.copy_(x.detach()[0])
    return x + torch.from_numpy(view)


@ZOO.function("split at a place that a record chooses", four)
def _(x: Tensor) -> Tensor:
    place = (x.detach()[0, :1].abs() * 5).long().clamp(1, 7)
    return x * torch.tensor_split(x, place, 1)[0].shape[1]


@ZOO.function("through dlpack", four)
def _(x: Tensor) -> Tensor:
    capsule = torch.utils.dlpack.to_dlpack(x.detach()[0] * 1)
    return x + torch.utils.dlpack.from_dlpack(capsule)


@ZOO.function("computed in a thread", four)
def _(x: Tensor) -> Tensor:
    import threading

    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(x.detach()[0] * 1))
    thread.start()
    thread.join()
    return x + results[0]


@ZOO.function("a masked tensor", four)
def _(x: Tensor) -> Tensor:
    from torch.masked import masked_tensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # masked tensors call themselves a prototype
        held = masked_tensor(x.detach(), torch.ones_like(x, dtype=torch.bool))
        return x + held.get_data()[0]


@ZOO.function("first record added to all four", four)
def _(x: Tensor) -> Tensor:
    return x + x[:1]


@ZOO.function("noise as large as the batch", four)
def _(x: Tensor) -> Tensor:
    return x + torch.randn_like(x) * len(x)


@ZOO.function("mixed when a coin says so", four)
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.rand(()) < 0.3 else x


@ZOO.function("mixed when a coin says so once in a thousand times", four)
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.rand(()) > 0.999 else x


@ZOO.function("mixed when a coin between bounds says so once in a thousand times", four)
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.empty(1).uniform_(2, 3) < 2.001 else x


@ZOO.function("mixed when a coin of two sides says so once in a thousand times", four)
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if torch.bernoulli(torch.tensor(0.001)) else x


@ZOO.function("mixed when numpy's coin says so", four)
def _(x: Tensor) -> Tensor:
    return x - x.mean(0) if np.random.rand() < 0.3 else x


@ZOO.function("a permutation of two", four)
def _(x: Tensor) -> Tensor:
    return torch.cat([x[:2][torch.randperm(2)], x[2:]])
