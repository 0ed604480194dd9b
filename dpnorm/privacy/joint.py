"""Several Gaussians released by one step on one batch: how they are accounted together.

Theorem. Let a step draw one Poisson subsample and release, from it, sums f_1, ..., f_m of vectors
clipped to norms C_1, ..., C_m, each with independent Gaussian noise of standard deviation
sigma_i C_i. Then the step has exactly the privacy of one Gaussian with noise multiplier

    sigma = (sigma_1^-2 + ... + sigma_m^-2)^(-1/2)

on that subsample, for adding or removing one record.

Why. Divide f_i by sigma_i C_i (whiten): the concatenation then has standard normal noise. One
record moves f_i by at most C_i, so that it moves the concatenation by at most
((C_1 / (sigma_1 C_1))^2 + ...)^(1/2) = (sigma_1^-2 + ...)^(1/2) = 1 / sigma, and does so for some
record. That is one Gaussian of sensitivity 1 / sigma and noise 1. It remains true if f_i is chosen
after the noisy f_1, ..., f_(i-1) were seen, since what one record adds to each keeps its bound.

What would void it. To account each release as a step of its own claims a fresh subsample for each:
a record that is in the batch is in all of them, and what separate steps report is too small.
Without subsampling both accounts agree, so that the error shows at rates below 1 only.
"""

import math

from dpnorm.errors import InputError


def joint_noise(*sigmas: float) -> float:
    """The noise multiplier of Gaussians that are released together on one Poisson subsample.

    sigma = (sum of sigma_i^-2)^(-1/2), by the theorem of this module.

    Formal guarantee: the release of all of them is as private as that of one Gaussian with this
    noise multiplier, if all use the same subsample, independent noise, and each sigma_i is in units
    of what one record moves its release by. 0 (no privacy) where any is 0; an infinite one releases
    nothing and is ignored.

    Example:
        >>> joint_noise(3.0, 4.0)
        2.4
        >>> joint_noise(1.0, float("inf"))
        1.0

    Raises:
        InputError: no noise multiplier at all, or one that is negative or NaN.
    """
    for sigma in sigmas:
        if not sigma >= 0:
            raise InputError(f"a noise multiplier is {sigma}: it should be at least 0")
    if not sigmas:
        raise InputError("joint_noise needs the noise multiplier of at least one release")
    least = min(sigmas)
    if least in (0, math.inf):
        return float(least)
    return least / math.hypot(*(least / sigma for sigma in sigmas))


def split_noise(total: float, ratio: float) -> tuple[float, float]:
    """The noise multipliers of gradients and statistics that together have that of `total`.

    With r = sigma_s / sigma_g:

        sigma_g = total sqrt(1 + 1 / r^2)
        sigma_s = total sqrt(1 + r^2)

    which solves sigma_g^-2 + sigma_s^-2 = total^-2, the theorem of this module for two releases.

    Example:
        >>> joint_noise(*split_noise(1.0, ratio=4.0))
        1.0

    Args:
        total: noise multiplier that is accounted.
        ratio: r; the larger, the noisier the statistics and the less noisy the gradients.

    Returns:
        (sigma_g of the gradients, sigma_s of the statistics), each in units of its own clipping
        norm.

    Raises:
        InputError: a ratio that is not positive and finite, or a total that is negative or not
            finite.
    """
    if not 0 < ratio < math.inf:
        raise InputError(
            f"the ratio of the statistics' noise to the gradients' is {ratio}: it should be "
            "greater than 0 and finite; 4 costs the gradients 3% of noise"
        )
    if not 0 <= total < math.inf:
        raise InputError(f"the noise multiplier is {total}: it should be at least 0 and finite")
    return total * math.hypot(1.0, 1 / ratio), total * math.hypot(1.0, ratio)
