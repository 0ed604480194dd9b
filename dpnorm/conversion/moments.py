"""Moment matching: the scale and shift with which another norm keeps a BatchNorm's function.

BatchNorm in evaluation computes, channel by channel,

    y = gamma (x - mu) / sqrt(v + eps_b) + beta

and a normalization by other moments (m, s) of the same activations computes

    y' = gamma' (x - m) / sqrt(s + eps) + beta'.

The two agree where (m, s) are what the layer will see, if

    gamma' = gamma sqrt(s + eps) / sqrt(v + eps_b)
    beta'  = beta + gamma (m - mu) / sqrt(v + eps_b).
"""

import torch
from torch import Tensor


def group_moments(mean: Tensor, var: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The moments that a GroupNorm sees when a record's statistics equal the population's.

    The mean of a group is the mean of its channels' means; its variance is the mean of the
    channels' variances plus the variance of their means (law of total variance).

    Args:
        mean: (C,) the population's mean of each channel.
        var: (C,) the population's variance of each channel.
        groups: number of groups, a divisor of C.

    Returns:
        Two (C,) tensors: the mean and the variance of each channel's group.
    """
    means, variances = mean.double().view(groups, -1), var.double().view(groups, -1)
    group_mean = means.mean(1, keepdim=True)
    group_var = (variances + (means - group_mean).square()).mean(1, keepdim=True)
    return group_mean.expand_as(means).flatten(), group_var.expand_as(means).flatten()


def matched_affine(
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    *,
    new_mean: Tensor,
    new_var: Tensor,
    new_eps: float,
) -> tuple[Tensor, Tensor]:
    """The scale and shift gamma', beta' of the formula above; all tensors are (C,).

    Computed in float64 and returned in the dtype of `weight`.
    """
    scale = weight.double() / torch.sqrt(var.double() + eps)
    new_weight = scale * torch.sqrt(new_var.double() + new_eps)
    new_bias = bias.double() + scale * (new_mean.double() - mean.double())
    return new_weight.to(weight.dtype), new_bias.to(weight.dtype)


def mean_square(mean: Tensor, var: Tensor) -> Tensor:
    """The mean over all channels of the population's squares, v_c + mu_c^2, for each channel.

    Args:
        mean: (C,) the population's mean of each channel.
        var: (C,) the population's variance of each channel.

    Returns:
        A (C,) tensor of one value.
    """
    return (var.double() + mean.double().square()).mean().expand_as(mean)
