"""What is seen of a model from outside: logits in evaluation mode, each of one record alone."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpnorm.errors import InputError
from dpnorm.leakage.views import fixed_views

if TYPE_CHECKING:
    from torch import Tensor, nn

_TRIED = 4  # records that are looked at alone
_TOLERANCE = 1e-3  # of the largest logit: float32 in batches of other sizes differs by 1e-6


def observed_logits(
    model: "nn.Module", x: "Tensor", *, views: int = 1, kind: str = "shift"
) -> NDArray[np.float32]:
    """The logits of every record, in evaluation mode; the model's modes come back after.

    In training mode a normalization layer would mix the records and dropout would blur them, and
    what an attack then says of a record is not of that record (the reference code of LiRA once ran
    so: its TPR at 0.1% FPR was 0.0169 instead of 0.0104). Whatever the model does in evaluation
    mode, some records are therefore looked at alone, too.

    Args:
        model: a classifier, (N, *shape) to (N, K).
        x: (N, *shape).
        views: A, of each record.
        kind: of views, see `fixed_views`.

    Returns:
        float32[N, A, K].

    Raises:
        InputError: in evaluation mode a record's logits depend on the other records, or change
            from call to call; or as `fixed_views`.
    """
    from dpnorm.training import predict

    logits = [predict(model, view) for view in fixed_views(x, views, kind)]
    for index in sorted({round(i * (len(x) - 1) / (_TRIED - 1)) for i in range(_TRIED)}):
        twice = x[index : index + 1].repeat(
            2, *[1] * (x.dim() - 1)
        )  # some layers take no single one
        together, alone = logits[0][index], predict(model, twice)[0]
        moved = float((together - alone).abs().max())
        if moved > _TOLERANCE * max(float(logits[0].abs().max()), 1.0):
            raise InputError(
                f"in evaluation mode the logits of record {index} move by {moved:.3g} when it is "
                "looked at alone (twice in a batch), so that they are no signal of that record: a "
                "layer takes statistics of the batch, or draws at random, in evaluation mode too "
                "(dpnorm.check names it)"
            )
    return np.stack([part.numpy().astype(np.float32) for part in logits], axis=1)
