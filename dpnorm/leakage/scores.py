"""An attack's scores, and what they say: ROC curve, AUC, advantage and TPR at a low FPR."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.bootstrap import Weights, two_way
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.operating_points import advantage, balanced_accuracy
from dpnorm.leakage.ranking import Ranking, Roc
from dpnorm.leakage.summarize import summarize
from dpnorm.leakage.summary import LeakageSummary


@dataclass(frozen=True, eq=False)
class MembershipScores:
    """One score for each target (model m, record n); higher means member.

    Attributes:
        attack: the attack's name.
        scores: float64[M, N], finite.
        keep: bool[M, N], the truth.
        outlier: bool[N].

    Raises:
        InputError: the shapes disagree, a score is not finite, or there is no member or no
            non-member among the targets.
    """

    attack: str
    scores: NDArray[np.float64]
    keep: NDArray[np.bool_]
    outlier: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = self.scores.shape
        if len(shape) != 2 or self.keep.shape != shape or self.outlier.shape != shape[1:]:
            raise InputError(
                f"scores have shape {shape}, keep {self.keep.shape}, outlier "
                f"{self.outlier.shape}; [M, N], [M, N] and [N] are needed"
            )
        if not np.isfinite(self.scores).all():
            count = int((~np.isfinite(self.scores)).sum())
            raise InputError(f"{count} of {self.scores.size} scores are NaN or infinite")
        members = int(self.keep.sum())
        if members in (0, self.keep.size):
            raise InputError(
                f"of {self.keep.size} targets {members} are members; an attack is judged on at "
                "least 1 member and 1 non-member"
            )

    def on(self, records: ArrayLike) -> "MembershipScores":
        """The same scores for some of the records, such as `scores.on(scores.outlier)`.

        Args:
            records: bool[N].

        Raises:
            InputError: not a mask over the records, or no member or no non-member is left.
        """
        mask = np.asarray(records)
        if mask.dtype != np.bool_ or mask.shape != self.outlier.shape:
            raise InputError(
                f"the mask is {mask.dtype}{list(mask.shape)}; bool[{len(self.outlier)}], one "
                "entry a record, is needed"
            )
        if not mask.any():
            raise InputError(f"the mask selects none of the {len(mask)} records")
        return MembershipScores(
            self.attack, self.scores[:, mask], self.keep[:, mask], self.outlier[mask]
        )

    def roc(self) -> Roc:
        """The ROC curve over all targets pooled, one point for each distinct score."""
        curve = self._ranking.curve()
        assert curve is not None  # __post_init__ saw members and non-members
        return curve

    @functools.cached_property
    def auc(self) -> Estimate:
        """P[a member scores higher than a non-member] + half of P[they tie], over all targets.

        The Mann-Whitney statistic; the interval resamples models and records
        (`dpnorm.leakage.bootstrap`).
        """
        return self._estimate(lambda curve: curve.area)

    def area(self, models: Weights, records: Weights) -> float:
        """The AUC where target (m, n) counts models[m] * records[n] times.

        Args:
            models: float64[M].
            records: float64[N].

        Returns:
            The AUC; NaN where the weights leave no member or no non-member.
        """
        curve = self._ranking.curve(models, records)
        return np.nan if curve is None else curve.area

    @functools.cached_property
    def balanced_accuracy(self) -> Estimate:
        """(1 + advantage) / 2: the best share of right guesses if half of the targets are members.

        The threshold is the best one on these same targets, see `advantage`.
        """
        return self._estimate(balanced_accuracy)

    @functools.cached_property
    def advantage(self) -> Estimate:
        """The largest TPR - FPR of any threshold, over all targets.

        The threshold is chosen on the targets it is judged on, so the value is above 0 even for
        scores that carry no signal (about 0.63 sqrt(2 / n) for n members and n non-members), and
        so is its interval: read the AUC for "is there any leakage".
        """
        return self._estimate(advantage)

    def tpr_at_fpr(self, fpr: float) -> Estimate:
        """The largest share of members found by a threshold whose FPR is at most `fpr`.

        Over all targets pooled. Equal scores stand or fall together: the threshold is never
        randomized and the curve never interpolated, so ties can only lower the value. The
        interval resamples models and records.

        Raises:
            InputError: `fpr` is not in (0, 1], or there are fewer than 1 / fpr non-members, which
                cannot resolve it.
        """
        if not 0 < fpr <= 1:
            raise InputError(f"the FPR is {fpr}; it must be above 0 and at most 1")
        others = int((~self.keep).sum())
        if others * fpr < 1 - 1e-9:
            raise InputError(
                f"TPR at FPR {fpr:g} needs at least {int(np.ceil(1 / fpr))} non-members; there are "
                f"{others}: ask for an FPR of at least {1 / others:.2g}, or train more models"
            )
        return self._estimate(lambda curve: curve.tpr_at(fpr))

    def summary(self, labels: ArrayLike | None = None) -> LeakageSummary:
        """All of it at once: over all targets, per class (given the labels), for outliers alone.

        AUC, balanced accuracy, advantage and the TPR at 10%, 1% and 0.1% FPR, each with its
        interval. An FPR below the resolution of a group, and a group without members or
        non-members, are marked as such.

        Args:
            labels: int[N], such as `pool.labels`.

        Raises:
            InputError: the labels are not N integers from 0 on.
        """
        return summarize(self, labels)

    def _estimate(self, statistic: Callable[[Roc], float]) -> Estimate:
        def of_replicate(models: Weights, records: Weights) -> float:
            curve = self._ranking.curve(models, records)
            return np.nan if curve is None else statistic(curve)

        return two_way(of_replicate, *self.scores.shape)

    @functools.cached_property
    def _ranking(self) -> Ranking:
        return Ranking.of(self.scores, self.keep)
