"""The inputs that pooling takes in another way than torch's kernels."""

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)


def maps_in(args: tuple[Any, ...]) -> Tensor | None:
    """The one argument, if it is a batch (rows, C, H, W) with channels first on the processor.

    Returns:
        None where there are other arguments, of another form or type, or no number.
    """
    x = args[0] if len(args) == 1 else None
    plain = (
        isinstance(x, Tensor)
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.dim() == 4
        and x.numel() > 0
        and x.is_contiguous()
    )
    return x if plain else None
