"""Random draws that are chosen: alike, so that unlike batches can be compared, or extreme."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpnorm.provenance.call import tensors_of
from dpnorm.provenance.tracer import COIN

_CONSTANT_DRAWS = {"randn": 0.7, "randn_like": 0.7, "normal": 0.7, "exponential": 1.0}
_UNIFORM = ("rand", "rand_like", "uniform")
_BELOW_ONE = 1 - 2**-24  # the largest number that a uniform draw in single precision gives

Overwrite = Callable[[Any, tuple[Any, ...], Any], None]  # of an operator, its arguments and output


def seed_draws(seed: int) -> None:
    """Of torch, and of Python and NumPy, from which a model may draw as well."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class ConstantDraws(TorchDispatchMode):
    """Gives random operators constant results: dropout keeps all, noise is the same everywhere.

    A permutation moves everything by one place. Other integer draws stay as they are. A draw gets
    no value that it could not have had.
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
    drawn = _drawn(func)
    if name == "aten::native_dropout":
        kept = 1 - args[1]  # scaled as F.dropout does where no gradient is needed
        out[0].copy_(args[0] / kept if kept and args[2] is not False else args[0] * bool(kept))
        out[1].fill_(1)
    elif name == "aten::randperm":  # no permutation that happens to leave records in place
        out.copy_(torch.arange(len(out)).roll(1))
    elif name.startswith("aten::rrelu_with_noise"):  # draws only where its input is negative
        out.copy_(F.leaky_relu(args[0], 0.25))
        args[1].copy_(torch.where(args[0] > 0, 1.0, 0.25))  # what the backward pass reads
    elif drawn in _UNIFORM:
        _fill_uniform(out, drawn, args, 0.5)
    elif drawn == "bernoulli":
        out.copy_(_chances(func, args) > 0)
    elif drawn in _CONSTANT_DRAWS:
        for tensor in tensors_of(out):
            tensor.fill_(_CONSTANT_DRAWS[drawn])


def extreme(*, high: bool) -> Overwrite:
    """Gives coins, uniform and of two sides, the largest or the smallest value that they can have.

    What Python does by one coin and a threshold, however rarely, it does for one of the two.
    """

    def overwrite(func: Any, args: tuple[Any, ...], out: Any) -> None:
        drawn = _drawn(func)
        if drawn in _UNIFORM and out.numel() <= COIN:
            _fill_uniform(out, drawn, args, _BELOW_ONE if high else 0.0)
        elif drawn == "bernoulli" and out.numel() <= COIN:
            chances = _chances(func, args)
            out.copy_(chances > 0 if high else chances >= 1)

    return overwrite


def _drawn(func: Any) -> str:
    """What a random operator draws, in place or not."""
    return str(func._schema.name.partition("::")[2].rstrip("_"))


def _fill_uniform(out: Tensor, drawn: str, args: tuple[Any, ...], place: float) -> None:
    """Fills a tensor with the value at this place, from 0 to 1, between its bounds."""
    bounds = [0.0, 1.0]
    if drawn == "uniform":
        bounds[: len(args) - 1] = args[1:]
    least, most = bounds
    out.fill_(least + (most - least) * place)


def _chances(func: Any, args: tuple[Any, ...]) -> Tensor:
    """Of each element of a Bernoulli draw, to be 1."""
    default = 0.5 if func._schema.name.endswith("_") else args[0]
    return torch.as_tensor(args[1] if len(args) > 1 else default)
