"""Inputs less a mean, over a standard deviation: with given numbers, or with the exact ones."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from dpnorm.data.dataset import Dataset, Records
from dpnorm.errors import InputError

CHUNK = 4096  # records that are held in double precision at once


def standardized(
    data: Dataset,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    *,
    scaling: str,
    uncovered: Sequence[str] = (),
) -> Dataset:
    """Returns the data set with (x - mean) / std, channel by channel, in all three parts.

    A channel is what dimension 1 of x counts: C channels in [N, C, ...], and each of the D features
    in [N, D]. The numbers are computed in double precision and rounded once. Nothing is clipped,
    and what is not finite stays so.

    Formal guarantee: none of its own. Each input is a function of its own record, of `mean` and of
    `std`, so that a training on the result has its guarantee where these two were known without
    looking at the records, or were released privately (`dpnorm.privacy.privatize_moments`). Where
    they were computed from the records without noise, say so in `uncovered`.

    Args:
        data: stays as it is.
        mean: (C,) in the units of the inputs.
        std: (C,) in the same units, above 0.
        scaling: in plain words, what the numbers are; it is added to what `data.scaling` says.
        uncovered: what was computed from private records without noise; added to that of `data`.

    Returns:
        The data set. Its `bounds`, where they are known, are those that hold for every channel:
        the least of the channels' lower bounds and the greatest of their upper ones.

    Raises:
        InputError: `mean` or `std` is not C finite numbers, a `std` is not above 0, or `uncovered`
            is a single text.

    >>> from dpnorm.data import load
    >>> data = standardized(load("digits"), [-1.0], [0.5], scaling="to [0, 4]")
    >>> data.bounds, data.scaling
    ((0.0, 4.0), 'from [0, 16], the range of the format, to [-1, 1]; then to [0, 4]')
    """
    if isinstance(uncovered, str):
        raise InputError(f"uncovered is the text {uncovered!r}: give a tuple of texts")
    centre, scale = _numbers("mean", mean, data), _numbers("std", std, data)
    if not bool((scale > 0).all()):
        channel = int((scale <= 0).nonzero()[0])
        raise InputError(
            f"std of channel {channel} is {float(scale[channel]):g}: it is to be above 0; give a "
            "channel that does not vary a std of 1"
        )

    def of(part: Records) -> Records:
        return Records(_scaled(part.x, centre, scale), part.y, part.outlier)

    bounds = None
    if data.bounds is not None:
        corners = torch.tensor(data.bounds, dtype=torch.float64)[:, None].expand(2, len(centre))
        low, high = _scaled(corners, centre, scale)
        bounds = (float(low.min()), float(high.max()))
    return dataclasses.replace(
        data,
        train=of(data.train),
        test=of(data.test),
        public=of(data.public),
        bounds=bounds,
        scaling=f"{data.scaling}; then {scaling}",
        uncovered=(*data.uncovered, *uncovered),
    )


def exact_moments(data: Dataset) -> Dataset:
    """Standardizes by the exact mean and standard deviation of the training records.

    This is what is usually done, and it is **not private**: both are computed from the private
    records without noise, and every standardized input, of all three parts, shows them. Whoever
    sees them may tell whether one record was there. `uncovered` of the result says so, and so does
    every privacy statement of a training on it; its `bounds` are no longer known without looking
    at the records. `dpnorm.privacy.privatize_moments` is the private way.

    The standard deviation is that of all numbers of a channel (divided by their count). A channel
    that does not vary among the training records is divided by 1.

    Args:
        data: stays as it is.

    Raises:
        InputError: there is no training record, or one holds a number that is not finite.
    """
    x = data.train.x
    if not len(x):
        raise InputError(f"{data.name!r} has no training record to take the moments of")
    if not bool(x.isfinite().all()):
        bad = ~x.flatten(1).isfinite().all(1)
        raise InputError(
            f"{int(bad.sum())} training records of {data.name!r} hold numbers that are not finite, "
            f"the first at position {int(bad.nonzero()[0])}: repair or remove them first"
        )
    by_channel = x.transpose(0, 1).flatten(1)
    varies = by_channel.amax(1) > by_channel.amin(1)
    mean = torch.stack([channel.double().mean() for channel in by_channel])
    std = torch.stack([channel.double().std(correction=0) for channel in by_channel])
    return standardized(
        data,
        mean,
        std.where(varies & (std > 0), 1.0),
        scaling="by the exact mean and standard deviation of the training records",
        uncovered=[
            "the mean and standard deviation of the inputs, computed from the private records "
            "without noise"
        ],
    )


def _numbers(name: str, given: Tensor | Sequence[float], data: Dataset) -> Tensor:
    """One finite number a channel, in double precision on the CPU."""
    try:
        numbers = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no tensor or list of numbers: {error}") from None
    if tuple(numbers.shape) != (data.shape[0],):
        raise InputError(
            f"{name} has the shape {list(numbers.shape)}, but records of the shape "
            f"{list(data.shape)} have {data.shape[0]} channels: give one number for each"
        )
    if not bool(numbers.isfinite().all()):
        channel = int((~numbers.isfinite()).nonzero()[0])
        raise InputError(
            f"{name} of channel {channel} is {float(numbers[channel])}: it is to be finite"
        )
    return numbers


def _scaled(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(x - mean) / std as float32, computed in float64: x (N, C, ...), the others (C,)."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, std = mean.to(x.device).view(shape), std.to(x.device).view(shape)
    return torch.cat([((part.double() - mean) / std).float() for part in x.split(CHUNK)])
