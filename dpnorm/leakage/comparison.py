"""What one pool leaks more than another that was trained on the same halves of the same records."""

import numpy as np

from dpnorm.errors import InputError
from dpnorm.leakage.bootstrap import Weights, two_way
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.memorization import Memorization
from dpnorm.leakage.scores import MembershipScores


def auc_difference(first: MembershipScores, second: MembershipScores) -> Estimate:
    """AUC of the first less that of the second, with an interval for the difference.

    Each replicate weighs the models and the records of both pools alike, so that what they have in
    common (hard records, lucky halves) does not widen the interval: pools of the same seed and
    records have the same membership, whatever the network.

    Raises:
        InputError: the pools have other memberships.
    """
    _require_alike(first.keep, second.keep)

    def difference(models: Weights, records: Weights) -> float:
        return first.area(models, records) - second.area(models, records)

    return two_way(difference, *first.keep.shape)


def memorized_difference(first: Memorization, second: Memorization) -> Estimate:
    """The share of outliers memorized by the first less that by the second, as `auc_difference`.

    Raises:
        InputError: the pools have other memberships, other outliers, or none.
    """
    _require_alike(first.keep, second.keep)
    if not np.array_equal(first.outlier, second.outlier):
        raise InputError("the pools have other outliers: compare those of the same data")

    def difference(models: Weights, records: Weights) -> float:
        return first.share(models, records) - second.share(models, records)

    return two_way(difference, len(first.keep), int(first.outlier.sum()))


def _require_alike(first: np.ndarray, second: np.ndarray) -> None:
    if not np.array_equal(first, second):
        raise InputError(
            f"the pools have other memberships ({first.shape} and {second.shape}): differences are "
            "of pools that were trained with the same seed on the same records"
        )
