"""Memorization of Feldman and Zhang (arXiv 2008.03703), from the same pool."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.bootstrap import Weights, two_way
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.pool import Pool


@dataclass(frozen=True, eq=False)
class Memorization:
    """How much more often a record gets its label from models that saw it.

    Attributes:
        values: float64[N], each in [-1, 1]: P[correct | in] - P[correct | out].
        outlier: bool[N].
        keep: bool[M, N], which model saw which record.
        correct: bool[M, N], whether model m predicts record n's label.
    """

    values: NDArray[np.float64]
    outlier: NDArray[np.bool_]
    keep: NDArray[np.bool_]
    correct: NDArray[np.bool_]

    @functools.cached_property
    def outliers(self) -> Estimate:
        """The share of outliers memorized: the mean of `values` over the outliers.

        That is the share of outliers predicted with their (often wrong) label by models that saw
        them, minus the same share by models that did not. The interval resamples models and
        outliers; a replicate leaves out an outlier that it has no "in" or no "out" model for.

        Raises:
            InputError: the pool has no outliers.
        """
        self._require_outliers()
        return two_way(self.share, len(self.keep), int(self.outlier.sum()))

    def share(self, models: Weights, records: Weights) -> float:
        """The share of outliers memorized where models and outliers count so many times.

        Args:
            models: float64[M].
            records: float64, one an outlier.

        Returns:
            The share; NaN where no outlier with a weight has an "in" and an "out" model.

        Raises:
            InputError: the pool has no outliers.
        """
        self._require_outliers()
        keep, correct = self.keep[:, self.outlier], self.correct[:, self.outlier]
        inside, outside = models @ keep, models @ ~keep
        known = (inside > 0) & (outside > 0)
        if not records[known].any():
            return np.nan
        seen = (models @ (correct & keep))[known] / inside[known]
        unseen = (models @ (correct & ~keep))[known] / outside[known]
        return float(np.average(seen - unseen, weights=records[known]))

    def _require_outliers(self) -> None:
        if not self.outlier.any():
            raise InputError(
                "the pool has no outliers, so no share of them is memorized: add some to the data "
                "with dpnorm.data.add_outliers before training the pool"
            )


def memorization(pool: Pool) -> Memorization:
    """mem(n) = P[model predicts y_n | n in its training set] - P[... | n not in it].

    Both are shares over the models of the pool. A prediction is the argmax of the logits averaged
    over the views.

    Raises:
        InputError: a record that all models saw, or none did: one of its shares is undefined.
    """
    correct = pool.logits.mean(axis=2).argmax(axis=-1) == pool.labels
    return memorization_of(pool.keep, correct, pool.outlier)


def memorization_of(
    keep: NDArray[np.bool_], correct: NDArray[np.bool_], outlier: NDArray[np.bool_]
) -> Memorization:
    """`memorization` from what it is made of.

    Args:
        keep: bool[M, N], which model saw which record.
        correct: bool[M, N], whether model m predicts record n's label.
        outlier: bool[N].

    Raises:
        InputError: a record that all models saw, or none did: one of its shares is undefined.
    """
    constant = keep.all(axis=0) | ~keep.any(axis=0)
    if constant.any():
        raise InputError(
            f"{int(constant.sum())} of {keep.shape[1]} records are in all of the {len(keep)} "
            "model(s) or in none; memorization needs each record in at least one and out of at "
            "least one: draw the membership with draw_membership"
        )
    seen = (correct & keep).sum(axis=0) / keep.sum(axis=0)
    unseen = (correct & ~keep).sum(axis=0) / (~keep).sum(axis=0)
    return Memorization(values=seen - unseen, outlier=outlier, keep=keep, correct=correct)
