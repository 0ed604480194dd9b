"""What was seen of a pool's members along their training: losses, predictions, gradient norms."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.estimate import Estimate
from dpnorm.leakage.memorization import Memorization, memorization_of
from dpnorm.leakage.scores import MembershipScores


@dataclass(frozen=True, eq=False)
class MemberCourse:
    """One member along its training, seen in evaluation mode after each of some epochs.

    Attributes:
        epochs: int64[E], counted from 1, ascending.
        correct: bool[E, N], whether it gave the record its label.
        loss: float32[E, N], cross entropy.
        norms: float32[E, N], the norm of each record's gradient before clipping, in training mode
            (`gradient_norms`); None where it was not asked for.
    """

    epochs: NDArray[np.int64]
    correct: NDArray[np.bool_]
    loss: NDArray[np.float32]
    norms: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Course:
    """A pool along its training.

    Attributes:
        epochs: int64[E].
        keep: bool[M, N], which member was trained on which record.
        outlier: bool[N].
        correct: bool[M, E, N].
        loss: float32[M, E, N].
        norms: float32[W, E, N], of the first W members.
        clip: the clipping norm of a private training; None of a plain one.
    """

    epochs: NDArray[np.int64]
    keep: NDArray[np.bool_]
    outlier: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    loss: NDArray[np.float32]
    norms: NDArray[np.float32]
    clip: float | None = None

    @classmethod
    def of(
        cls,
        courses: Sequence[MemberCourse | None],
        keep: NDArray[np.bool_],
        outlier: NDArray[np.bool_],
        clip: float | None = None,
    ) -> Self:
        """Stacks the members' courses, in their order.

        Raises:
            InputError: a member was not watched, or the members at other epochs than each other.
        """
        known = [course for course in courses if course is not None]
        if not known or len(known) < len(courses):
            raise InputError(
                "the pool was not watched along its training: train it with watch_every=1 (pool."
                "watch_every in a recipe)"
            )
        if any(not np.array_equal(course.epochs, known[0].epochs) for course in known):
            raise InputError("the pool's members were watched at different epochs")
        norms = [course.norms for course in known if course.norms is not None]
        shape = known[0].loss.shape
        return cls(
            epochs=known[0].epochs,
            keep=keep,
            outlier=outlier,
            correct=np.stack([course.correct for course in known]),
            loss=np.stack([course.loss for course in known]),
            norms=np.stack(norms) if norms else np.zeros((0, *shape), dtype=np.float32),
            clip=clip,
        )

    def at(self, epoch: int) -> int:
        """The place of an epoch in the arrays.

        Raises:
            InputError: it was not watched.
        """
        found = np.flatnonzero(self.epochs == epoch)
        if not len(found):
            raise InputError(
                f"epoch {epoch} was not watched; these were: {', '.join(map(str, self.epochs))}"
            )
        return int(found[0])

    def memorization(self, epoch: int) -> Memorization:
        """Memorization (Feldman and Zhang) as it stood after an epoch."""
        return memorization_of(self.keep, self.correct[:, self.at(epoch)], self.outlier)

    def memorized(self) -> tuple[Estimate, ...]:
        """The share of outliers memorized after each watched epoch, with its interval."""
        return tuple(self.memorization(int(epoch)).outliers for epoch in self.epochs)

    def scores(self, epoch: int) -> MembershipScores:
        """The loss attack as it stood after an epoch."""
        loss = self.loss[:, self.at(epoch)].astype(np.float64)
        return MembershipScores("loss", -loss, self.keep, self.outlier)

    def members(self, count: int) -> Self:
        """The course of the first `count` members alone."""
        return replace(
            self,
            keep=self.keep[:count],
            correct=self.correct[:count],
            loss=self.loss[:count],
            norms=self.norms[:count],
        )
