"""Constant random draws, so that runs of unlike batches can be compared."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dpnorm.provenance.call import tensors_of

_CONSTANT_DRAWS = {
    "bernoulli": 1.0,
    "rand": 0.5,
    "rand_like": 0.5,
    "uniform": 0.5,
    "randn": 0.7,
    "randn_like": 0.7,
    "normal": 0.7,
    "exponential": 1.0,
}


class ConstantDraws(TorchDispatchMode):
    """Gives random operators constant results: dropout keeps all, noise is the same everywhere.

    A permutation moves everything by one place. Other integer draws stay as they are.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            make_constant(func, args, out)
        return out


def make_constant(func: Any, args: tuple[Any, ...], out: Any) -> None:
    """Overwrites what a random operator gave, as `ConstantDraws` says."""
    name = func._schema.name
    if name == "aten::native_dropout":
        kept = 1 - args[1]  # scaled as F.dropout does where no gradient is needed
        out[0].copy_(args[0] / kept if kept and args[2] is not False else args[0] * bool(kept))
        out[1].fill_(1)
    elif name == "aten::randperm":  # no permutation that happens to leave records in place
        out.copy_(torch.arange(len(out)).roll(1))
    elif name.startswith("aten::rrelu_with_noise"):  # draws only where its input is negative
        out.copy_(F.leaky_relu(args[0], 0.25))
        args[1].copy_(torch.where(args[0] > 0, 1.0, 0.25))  # what the backward pass reads
    elif name.partition("::")[2].rstrip("_") in _CONSTANT_DRAWS:
        for tensor in tensors_of(out):
            tensor.fill_(_CONSTANT_DRAWS[name.partition("::")[2].rstrip("_")])
