"""The norm of each record's gradient: how hard it pulls at the parameters."""

from typing import TYPE_CHECKING, Literal

from dpnorm.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dpnorm.leakage.row_gradients import Criterion, Reduction


def gradient_norms(
    model: "nn.Module",
    x: "Tensor",
    y: "Tensor",
    *,
    mode: Literal["train", "eval"] = "train",
    batch_size: int = 64,
    criterion: "Criterion | None" = None,
    loss_reduction: "Reduction" = "mean",
    seed: int = 0,
) -> "Tensor":
    """The L2 norm of each record's gradient over all trainable parameters, before clipping.

    It is the second of the measures of arXiv 2605.24420 (influence by gradient norms). The two
    modes measure different things:

    - "eval": the record alone, in evaluation mode: ||grad loss(x_i, y_i)||, for every model the
      gradient of one record, BatchNorm with its running statistics. By `torch.func`, and one record
      after the other for a model that it cannot batch.
    - "train": the record in its batch, as a training step sees it: the norm of its row's part of
      the gradient of the batch's summed loss. Without BatchNorm that is its own gradient; with it,
      the row depends on the batch, and what the record does to other rows is not in it
      (`step_influence` measures that). The records are taken in their order, in batches as even as
      possible; dropout draws from `seed`.

    A model in training mode is taken as it is for "train", module by module; one in evaluation mode
    is switched. In each case modes, buffers (running statistics too), `.grad` and random states
    come back bit for bit.

    Args:
        model: to differentiate.
        x: (N, ...); moved to the model's device.
        y: (N,) int64 labels, or what the criterion takes.
        mode: "train" or "eval".
        batch_size: records a pass; batch_size * parameters numbers are held at once.
        criterion: (output, targets) -> scalar; default: the cross entropy of logits (N, K).
        loss_reduction: what the criterion does over records. The norms are those of single losses.
        seed: of random draws in the model.

    Returns:
        float32[N] on the CPU.

    Raises:
        InputError: an unknown mode, a batch size below 1, records that model or loss cannot take,
            NaN, no trainable parameter; in mode "train" also a single record under BatchNorm, or a
            model whose rows are not the records.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[1.0], [1.0]])
    >>> gradient_norms(model, x, y, criterion=nn.MSELoss()).tolist()  # 2 |w x - y| ||x||
    [10.0, 2.0]
    """
    from dpnorm.leakage.record_norms import alone, in_batches
    from dpnorm.leakage.row_gradients import Loss, check_records, require_finite

    if mode not in ("train", "eval"):
        raise unknown_name("mode", mode, ("train", "eval"))
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; an integer from 1 on is needed")
    loss = Loss.of(criterion, loss_reduction)
    check_records(model, x, y, criterion, loss, least=1)
    measure = in_batches if mode == "train" else alone
    norms = measure(model, x, y, loss, batch_size, seed).float()
    require_finite(norms)
    return norms
