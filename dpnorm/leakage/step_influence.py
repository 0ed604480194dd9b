"""What one record does to one training step, by leaving it out of the batch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.indices import chosen_indices
from dpnorm.leakage.step_summary import StepSummary, summarize_steps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dpnorm.leakage.row_gradients import Criterion, Reduction

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moves:
    """The parts of ||S(B) - S(B without i)||, for each probed record i: float64[R] each.

    Attributes:
        own: ||g_i(B)||, the record's own row.
        spill: ||sum over the others j of g_j(B) - g_j(B without i)||: what it does to their rows.
        total: ||own + spill||, as vectors: the step's whole movement.
        largest: the largest ||g_j(B) - g_j(B without i)|| of a single neighbour j.
    """

    own: Floats
    spill: Floats
    total: Floats
    largest: Floats

    def to_dict(self) -> dict[str, list[float]]:
        """Lists, ready for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}


@dataclass(frozen=True, eq=False)
class StepInfluence:
    """The influence of records on one training step.

    Attributes:
        records: int64[R], the probed rows of the batch.
        batch: B, the records in the batch.
        plain: of the gradients as they are.
        clipped: of the gradients clipped to `clip` record by record; None without `clip`. Where
            records are isolated its total is at most `clip`, the sensitivity that DP-SGD's noise is
            made for.
        clip: the clipping norm, or None.
        lr: the learning rate, or None.
    """

    records: NDArray[np.int64]
    batch: int
    plain: Moves
    clipped: Moves | None
    clip: float | None
    lr: float | None

    @property
    def moves(self) -> Moves:
        """The clipped ones where there is a clipping norm, otherwise the plain ones."""
        return self.plain if self.clipped is None else self.clipped

    @property
    def ratio(self) -> Floats:
        """The total of the clipped gradients over the clipping norm, float64[R].

        Above 1 it refutes the bound that DP-SGD's epsilon rests on; at or below 1 it proves
        nothing (see `dpnorm.check`).

        Raises:
            InputError: it was measured without `clip`.
        """
        if self.clipped is None or self.clip is None:
            raise InputError("measured without clip: there is no bound to compare the total with")
        return self.clipped.total / self.clip

    @property
    def displacement(self) -> Floats:
        """How far the record moves the parameters in one SGD step: lr * total / B, float64[R].

        Both sums are divided by B, as DP-SGD divides by the expected batch size; the gradients are
        clipped where there is a clipping norm.

        Raises:
            InputError: it was measured without `lr`.
        """
        if self.lr is None:
            raise InputError("measured without lr: a displacement needs a learning rate")
        return self.lr * self.moves.total / self.batch

    def summary(self, outlier: ArrayLike) -> StepSummary:
        """Outliers beside the rest; clipped gradients where there is a clipping norm.

        Args:
            outlier: bool[B], for all records of the batch.

        Raises:
            InputError: another shape or dtype.
        """
        mask = np.asarray(outlier)
        if mask.dtype != np.bool_ or mask.shape != (self.batch,):
            raise InputError(
                f"outlier is {mask.dtype}{list(mask.shape)}; bool[{self.batch}], one a record of "
                "the batch, is needed"
            )
        return summarize_steps(vars(self.moves), mask[self.records], self.batch, self.clip)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "records": self.records.tolist(),
            "batch": self.batch,
            "clip": self.clip,
            "lr": self.lr,
            "plain": self.plain.to_dict(),
            "clipped": None if self.clipped is None else self.clipped.to_dict(),
        }

    def __str__(self) -> str:
        """The largest and the median movements, in at most 80 columns."""
        nobody = np.zeros(self.batch, dtype=np.bool_)
        lines = [str(self.summary(nobody))]
        top = int(self.moves.total.argmax())
        lines.append(
            f"record {int(self.records[top])} moves the step most: {self.moves.total[top]:.4g}"
        )
        return "\n".join(lines)


def step_influence(
    model: "nn.Module",
    x: "Tensor",
    y: "Tensor",
    *,
    records: ArrayLike | None = None,
    clip: float | None = None,
    criterion: "Criterion | None" = None,
    loss_reduction: "Reduction" = "mean",
    lr: float | None = None,
) -> StepInfluence:
    """Leaves each record out of the batch and splits the change of the gradient sum.

    With S(B) the sum over the batch of the records' rows g_j(B) of the gradient (of summed losses),

        S(B) - S(B without i) = g_i(B) + sum over j != i of [g_j(B) - g_j(B without i)]
                                 own      spill-over

    Where records are isolated (GroupNorm, LayerNorm, no normalization) the spill-over is 0, up to
    the rounding of float arithmetic. Under BatchNorm in training mode the record changes the
    statistics that its neighbours are normalized by. docs/influence.md has a closed form.

    One batch is measured, with R + 1 passes over it. Dropout layers do not draw, since other draws
    in the smaller batch would drown the influence. A model in training mode is taken as it is,
    module by module; one in evaluation mode is switched. Modes, buffers, `.grad` and random states
    come back bit for bit.

    Args:
        model: to differentiate.
        x: (B, ...), one batch of at least 2 records, BatchNorm of vectors needs 3.
        y: (B,) int64 labels, or what the criterion takes.
        records: int[R], which rows to leave out one by one; default all. About 3 B * parameters
            numbers are held at once.
        clip: the clipping norm: measures clipped gradients as well.
        criterion: (output, targets) -> scalar; default: the cross entropy of logits (B, K).
        loss_reduction: what the criterion does over records. Gradients are of the sum in any case.
        lr: the learning rate, for `displacement`.

    Raises:
        InputError: fewer than 2 records, rows that are not in the batch, `clip` or `lr` that are
            not positive, records that model or loss cannot take, NaN, no trainable parameter, a
            model whose rows are not the records, or one that draws at random.
    """
    from dpnorm.leakage.leave_one_out import leave_one_out
    from dpnorm.leakage.row_gradients import Loss, check_records

    for name, value in (("clip", clip), ("lr", lr)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} is {value}: a positive number is needed")
    loss = Loss.of(criterion, loss_reduction)
    check_records(model, x, y, criterion, loss, least=2)
    probed = chosen_indices(records, len(x), "rows of the batch")
    plain, clipped = leave_one_out(model, x, y, loss, probed.tolist(), clip)
    return StepInfluence(
        records=probed,
        batch=len(x),
        plain=_moves(plain),
        clipped=None if clip is None else _moves(clipped),
        clip=None if clip is None else float(clip),
        lr=None if lr is None else float(lr),
    )


def _moves(parts: list[list[float]]) -> Moves:
    own, spill, total, largest = np.array(parts, dtype=np.float64).T.copy()
    return Moves(own, spill, total, largest)
