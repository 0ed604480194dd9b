"""The mean and the standard deviation of the inputs, released once with noise, before training.

Theorem. Let z be the numbers of one channel of one record, each in [-1, 1], m their mean and q the
mean of their squares. The record's vector holds (m, q - 1) for each of C channels. Its norm is at
most sqrt(C).

Why. Squares are convex, so that m^2 <= q (Jensen), and 0 <= q <= 1. Hence, channel by channel,

    m^2 + (q - 1)^2 <= q + (1 - q)^2 = 1 - q (1 - q) <= 1,

and C channels add up to at most C. The bound is reached: by records that are 1 throughout, and by
those that are 0 throughout. No data enter it, so that there is no threshold to choose.

Why q - 1. One Gaussian hides a record if it hides the longest vector that a record can add. (m, q)
can be as long as sqrt(2), (m, q - 1/2) as sqrt(5/4). With (m, q - c) the ends q = 0 and q = 1 have
the squared lengths c^2 and 1 + (1 - c)^2, of which the larger is least at c = 1. The constant is
added again after the division by the number of records N: (sum of (q - 1) + noise) / N + 1 is
(sum of q + noise) / N. That is post-processing, and it needs of N what the division needs of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpnorm.data import Dataset, standardized
from dpnorm.errors import InputError, unknown_name
from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_of, noise_for
from dpnorm.privacy.arguments import is_number, require_positive
from dpnorm.privacy.history import require_delta
from dpnorm.privacy.ledger import Ledger, Release
from dpnorm.privacy.randomness import entropy_generator, randomness, seeded_generator

RELEASED = "the sum of the records' means and mean squares of each input channel"
LEAST_VARIANCE = 1e-4  # of inputs in [-1, 1]: a standard deviation of 1% of half their range
CHUNK = 4096  # records that are held in double precision at once


@dataclass(frozen=True, eq=False)
class PrivateMoments:
    """What `privatize_moments` released, and the data set that is standardized by it.

    Attributes:
        mean: (C,) float64, of each channel, in the units of the data.
        std: (C,) float64, above 0, in the same units.
        data: the standardized data set, all three parts by the same numbers.
        noise_multiplier: standard deviation of the noise over what one record moves the sum by.
        ledger: that holds the release, for the engine that trains on `data`.
        run: its name there.
        accountant: "prv", "rdp" or "pld".
        randomness: where the noise came from.
    """

    mean: Tensor
    std: Tensor
    data: Dataset
    noise_multiplier: float
    ledger: Ledger
    run: str
    accountant: str
    randomness: str

    def epsilon(self, delta: float = 1e-5) -> float:
        """An upper bound on epsilon of this release alone, a record added or removed.

        Raises:
            InputError: delta is not in (0, 1).
        """
        history = [(self.noise_multiplier, 1.0, 1)]
        return epsilon_of(history, delta=delta, accountant=self.accountant)


def privatize_moments(
    data: Dataset,
    *,
    noise_multiplier: float | None = None,
    epsilon: float | None = None,
    delta: float = 1e-5,
    bounds: tuple[float, float] | None = None,
    ledger: Ledger | None = None,
    run: str | None = None,
    accountant: str = "prv",
    seed: int | None = None,
) -> PrivateMoments:
    """Standardizes a data set by a mean and a standard deviation that are released with noise.

    Does normalizing a data set change what DP-SGD guarantees? With constants, such as the range of
    a pixel, it does not. With the exact mean and standard deviation of the data set it does, though
    the API prints the same epsilon. That epsilon is about data sets of *normalized* records that
    differ in one. But each normalized record depends on all the others: one original record more
    moves the mean, the mean moves every input, and every gradient of the step may change, not one.
    For the original records the printed epsilon is no guarantee, and no useful one follows from it:
    once normalized, the two data sets differ in all their records. Besides, the exact numbers are
    published with the model, which needs them for new inputs. With a mean and a standard deviation
    that were released with noise, each normalized record depends on its own original and on what
    was released. The training keeps its epsilon for the original records, and the release has one
    of its own. The ledger accounts both together.

    How: inputs are clipped to `bounds` and brought to [-1, 1] by z = (x - centre) / half. A
    record's vector is (mean of z, mean of z^2 less 1) of each channel, of norm sqrt(C) at most, and

        noisy sum = sum of the training records' vectors + noise_multiplier sqrt(C) N(0, I)

    is all that is released. It is divided by the number of training records N, which gives m and q
    (brought to [-1, 1] and [0, 1], where the true ones lie). The variance q - m^2 is raised to 1e-4
    or, where that is more, to the standard deviation of the noise in q (up to 1): public constants,
    so that std is above 0. Then mean = centre + half m and std = half sqrt(variance).

    A channel is what dimension 1 of x counts: C channels in [N, C, ...], the D features in [N, D].
    The noise in the mean of a channel is half noise_multiplier sqrt(C) / N: wide records need many.

    Formal guarantee: that of one Gaussian with `noise_multiplier`, without subsampling, for adding
    or removing one training record (the theorem of `dpnorm.privacy.moments`). It holds for
    whatever is done with `mean` and `std`, and for a training on `.data` together with its own
    releases if its engine has this `ledger`: PrivacyEngine(ledger=moments.ledger).

    What would void it: `bounds` that were chosen by looking at the records, such as their least and
    greatest value; take the range of the format or of the instrument. A record that holds a number
    that is not finite adds nothing to the sum; an error would show that it was there. It counts in
    N, and how many there are is not released. Not covered is what no statement covers: N is public,
    and so are the test and public parts, which nothing protects.

    Args:
        data: stays as it is. Its inputs are clipped for the sum, not in the result.
        noise_multiplier: standard deviation of the noise over sqrt(C). Give this or `epsilon`.
        epsilon: the budget of this release together with what the ledger holds already; the noise
            is the smallest that keeps it.
        delta: the probability with which the guarantee may fail; only used with `epsilon`.
        bounds: the least and the greatest value of an input, known without looking at the records;
            default `data.bounds`.
        ledger: of earlier runs on the same records; this release is added to it. Default a new one.
        run: the name of this release there; default "moments", "moments 2", ..., the first free.
        accountant: "prv", "rdp" or "pld".
        seed: makes the noise reproducible, which is for experiments only: whoever knows the seed
            can take the noise away. By default it comes from the operating system.

    Returns:
        The moments, the standardized data set and the ledger. `.data.uncovered` is as it was: there
        is nothing to add.

    Raises:
        InputError: both or neither of `noise_multiplier` and `epsilon`; numbers that are none; no
            bounds; no training record; a budget that is spent or cannot be reached; a name that is
            taken. Nothing is released then, and the ledger is as it was.

    Source: Tramer and Boneh (arXiv 2011.11660) normalize features by noisy sums of clipped means
    and mean squares of the records. Their thresholds are medians of the private records; here they
    follow from public bounds.

    >>> from dpnorm.data import load
    >>> moments = privatize_moments(load("digits"), epsilon=1.0, seed=0)
    >>> moments.mean.shape, moments.ledger.runs(), 0.98 < moments.epsilon(delta=1e-5) <= 1.0
    (torch.Size([1]), ['moments'], True)
    """
    low, high = _bounds(data, bounds)
    _require_ledger(ledger)
    if not len(data.train):
        raise InputError(f"{data.name!r} has no training record to take the moments of")
    if accountant not in ACCOUNTANTS:
        raise unknown_name("accountant", accountant, ACCOUNTANTS)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"seed is {seed!r}: it is to be a whole number, or None")
    ledger = Ledger() if ledger is None else ledger
    noise = _noise(noise_multiplier, epsilon, delta, ledger, accountant)
    run = ledger.take_name(run, kind="moments")

    records, channels = len(data.train), data.shape[0]
    clip = math.sqrt(channels)
    ledger.book(noise, 1.0, (Release(RELEASED, noise, clip),), run=run)
    generator = entropy_generator() if seed is None else seeded_generator(seed, "moments")
    drawn = torch.randn(2 * channels, generator=generator, dtype=torch.float64)
    noisy = summed_moments(data.train.x, low, high) + noise * clip * drawn

    mean, std = _from_sum(noisy, records, noise * clip, low, high)
    scaling = (
        f"by a mean and a standard deviation of the training records clipped to [{low:g}, "
        f"{high:g}], released with Gaussian noise of multiplier {noise:.4g}"
    )
    if seed is not None:
        scaling += f", {randomness(seed)}"
    return PrivateMoments(
        mean=mean,
        std=std,
        data=standardized(data, mean, std, scaling=scaling),
        noise_multiplier=noise,
        ledger=ledger,
        run=run,
        accountant=accountant,
        randomness=randomness(seed),
    )


def summed_moments(x: Tensor, low: float, high: float) -> Tensor:
    """The sum of the records' vectors, without noise: what one record moves by sqrt(C) at most.

    Args:
        x: (N, C, ...) in any units; a record with a number that is not finite adds nothing.
        low: what smaller numbers are clipped to.
        high: what greater numbers are clipped to.

    Returns:
        (2C,) float64 on the CPU: the sum of the channels' means, and of their mean squares less 1,
        with [low, high] brought to [-1, 1].
    """
    total = torch.zeros(2 * x.shape[1], dtype=torch.float64)
    for part in x.split(CHUNK):
        total += _vectors(part, low, high).sum(0).cpu()
    return total


def _vectors(x: Tensor, low: float, high: float) -> Tensor:
    """Each record's vector (N, 2C), of norm at most sqrt(C)."""
    x = x.flatten(2) if x.dim() > 2 else x[:, :, None]
    usable = x.isfinite().all(2).all(1)
    centre, half = _centre_and_half(low, high)
    z = ((x.double().clamp(low, high) - centre) / half).clamp(-1, 1)
    vectors = torch.cat([z.mean(2), z.square().mean(2) - 1], 1)
    return vectors.masked_fill(~usable[:, None], 0.0)


def _from_sum(
    noisy: Tensor, records: int, deviation: float, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) of each channel, from the noisy sum: post-processing."""
    m, less = (noisy / records).chunk(2)
    m, q = m.clamp(-1, 1), (less + 1).clamp(0, 1)
    least = min(max(LEAST_VARIANCE, deviation / records), 1.0)
    centre, half = _centre_and_half(low, high)
    return centre + half * m, half * (q - m.square()).clamp_min(least).sqrt()


def _centre_and_half(low: float, high: float) -> tuple[float, float]:
    return low / 2 + high / 2, high / 2 - low / 2


def _bounds(data: Dataset, given: Sequence[float] | None) -> tuple[float, float]:
    """The bounds to clip to: the argument's, or else those of the data set."""
    bounds = data.bounds if given is None else given
    if bounds is None:
        raise InputError(
            f"the bounds of the inputs of {data.name!r} are not known: pass bounds=(low, high), "
            "the range that their format or their instrument allows, and not that of the records"
        )
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise InputError(
            f"bounds is {bounds!r}: give two numbers, the least and the greatest value of an input"
        ) from None
    if not (is_number(low) and is_number(high) and _single(low) < _single(high)):
        raise InputError(
            f"bounds are {low!r} and {high!r}: give two finite numbers that differ in single "
            "precision, the lower one first"
        )
    return float(low), float(high)


def _single(number: float) -> float:
    return float(torch.tensor(float(number), dtype=torch.float32))


def _require_ledger(ledger: Ledger | None) -> None:
    if not (ledger is None or isinstance(ledger, Ledger)):
        raise InputError(
            f"ledger is a {type(ledger).__name__}: pass that of another release or engine, or "
            "dpnorm.privacy.Ledger.load(path)"
        )


def _noise(
    noise_multiplier: float | None,
    epsilon: float | None,
    delta: float,
    ledger: Ledger,
    accountant: str,
) -> float:
    """The noise multiplier: as it was given, or calibrated beside what the ledger holds."""
    require_delta(delta)
    if (noise_multiplier is None) == (epsilon is None):
        raise InputError(
            f"noise_multiplier is {noise_multiplier!r} and epsilon {epsilon!r}: give exactly one"
        )
    if noise_multiplier is not None:
        require_positive("noise_multiplier", noise_multiplier)
        return float(noise_multiplier)
    assert epsilon is not None
    require_positive("epsilon", epsilon)
    return noise_for(
        epsilon=float(epsilon),
        sampling_rate=1.0,
        steps=1,
        delta=delta,
        accountant=accountant,
        before=tuple(ledger.history()),
    )
