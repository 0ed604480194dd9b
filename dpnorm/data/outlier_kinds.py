"""The four kinds of outliers that come with dpnorm."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dpnorm.data.dataset import Dataset, Records
from dpnorm.data.outliers import outlier_kind
from dpnorm.data.photographs import patches
from dpnorm.errors import InputError

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@outlier_kind("noise")
def noise(
    data: Dataset, count: int, rng: np.random.Generator, foreign: Records | None = None
) -> Records:
    """Appends uniform noise between the bounds, with uniformly random labels; any shape."""
    x = torch.from_numpy(rng.random((count, *data.shape), dtype=np.float32))
    x = _between(x, data)
    return _appended(data, x, rng)


@outlier_kind("mislabelled")
def mislabelled(
    data: Dataset, count: int, rng: np.random.Generator, foreign: Records | None = None
) -> Records:
    """Gives random ordinary records another label, uniform over the wrong ones."""
    if data.num_classes < 2:
        raise InputError(f"{data.name!r} has one class, so no record of it can be mislabelled")
    chosen = _ordinary(data, count, rng)
    shift = torch.from_numpy(rng.integers(1, data.num_classes, size=count))
    y, outlier = data.train.y.clone(), data.train.outlier.clone()
    y[chosen] = (y[chosen] + shift) % data.num_classes
    outlier[chosen] = True
    return Records(data.train.x.clone(), y, outlier)


@outlier_kind("inverted")
def inverted(
    data: Dataset, count: int, rng: np.random.Generator, foreign: Records | None = None
) -> Records:
    """Replaces random ordinary images by their negatives; their labels stay right."""
    _require_images(data.shape, f"inverted outliers of {data.name!r}")
    low, high = _bounds(data)
    chosen = _ordinary(data, count, rng)
    x, outlier = data.train.x.clone(), data.train.outlier.clone()
    x[chosen] = (low + high) - x[chosen]
    outlier[chosen] = True
    return Records(x, data.train.y.clone(), outlier)


@outlier_kind("foreign")
def foreign_records(
    data: Dataset, count: int, rng: np.random.Generator, foreign: Records | None = None
) -> Records:
    """Appends images of another source with random labels: `foreign`, or photograph patches."""
    if foreign is None:
        _require_images(data.shape, f"photograph patches for {data.name!r}")
        x = _between(patches(count, rng), data)
    elif len(foreign) < count:
        raise InputError(f"{count} foreign outliers were asked for, but only {len(foreign)} given")
    else:
        x = foreign.x[:count]
    return _appended(data, _adapted(x, data), rng)


def _bounds(data: Dataset) -> tuple[float, float]:
    """The bounds of the inputs, or where none are known the extremes of the train records.

    Outliers are an instrument of experiments: what they reveal of the extremes is not protected.
    """
    return data.bounds or (float(data.train.x.min()), float(data.train.x.max()))


def _between(x: Tensor, data: Dataset) -> Tensor:
    """Brings values in [0, 1] to the bounds of the inputs."""
    low, high = _bounds(data)
    return low + x * (high - low)


def _adapted(x: Tensor, data: Dataset) -> Tensor:
    """Brings images [N, C', H', W'] to the data set's channels and size."""
    if tuple(x.shape[1:]) == tuple(data.shape):
        return x.clone()
    _require_images(data.shape, f"foreign outliers of another shape for {data.name!r}")
    _require_images(tuple(x.shape[1:]), f"foreign outliers for {data.name!r} out of these records")
    channels, *size = data.shape
    if x.shape[1] != channels:
        weights = torch.tensor(_LUMINANCE) if x.shape[1] == 3 else torch.ones(x.shape[1])
        gray = torch.einsum("nchw,c->nhw", x, weights / weights.sum())
        x = gray[:, None].repeat(1, channels, 1, 1)
    resized = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp(x.min(), x.max())  # undo rounding: a mean never leaves the range


def _require_images(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 3:
        raise InputError(
            f"{what} need images, records of the shape (C, H, W), but these are {tuple(shape)}"
        )


def _ordinary(data: Dataset, count: int, rng: np.random.Generator) -> Tensor:
    """Draws `count` different positions of train records that are no outliers yet."""
    candidates = torch.nonzero(~data.train.outlier).flatten().numpy()
    if count > len(candidates):
        raise InputError(
            f"{count} records were to become outliers, but {data.name!r} has only "
            f"{len(candidates)} train records that are none yet"
        )
    return torch.from_numpy(rng.choice(candidates, size=count, replace=False))


def _appended(data: Dataset, x: Tensor, rng: np.random.Generator) -> Records:
    labels = torch.from_numpy(rng.integers(0, data.num_classes, size=len(x)))
    return Records(
        torch.cat([data.train.x, x]),
        torch.cat([data.train.y, labels]),
        torch.cat([data.train.outlier, torch.ones(len(x), dtype=torch.bool)]),
    )
