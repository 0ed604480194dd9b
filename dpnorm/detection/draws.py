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
    "randn": 0.0,
    "randn_like": 0.0,
    "normal": 0.0,
    "exponential": 1.0,
}


class ConstantDraws(TorchDispatchMode):
    """Gives random operators constant results: dropout keeps all, noise is nothing.

    Permutations and integer draws stay as they are; they decide places, not sizes.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return out
        name = func._schema.name
        if name == "aten::native_dropout":
            out[0].copy_(args[0])
            out[1].fill_(1)
        elif name.startswith("aten::rrelu_with_noise"):  # draws only where its input is negative
            out.copy_(F.leaky_relu(args[0], 0.25))
        elif name.partition("::")[2].rstrip("_") in _CONSTANT_DRAWS:
            for tensor in tensors_of(out):
                tensor.fill_(_CONSTANT_DRAWS[name.partition("::")[2].rstrip("_")])
        return out
