"""Layers of the BatchNorm family with a forward of their own: what they compute, by trial.

A copy of the layer is run in evaluation on random numbers, with random statistics, and compared
with BatchNorm followed by what the layer may fuse with it: a dropout, an activation. What fits is
what it computes; what fits nothing is not converted.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.conversion.kinds import num_channels

_SHAPES = ((5, 5), (5,), (), (3, 3, 3))  # of positions behind (N, C)
_RECORDS = 4
_ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Mish)
_FUSED = ("drop", "dropout", "act", "activation", "act_fn", "activation_fn")
_NAMES = ("activation", "act_name", "act", "act_layer", "act_type")
_SLOPES = ("activation_param", "act_param", "slope", "negative_slope", "alpha")


@dataclass(frozen=True)
class Fused:
    """What a layer computes: BatchNorm, then the modules of `tail`.

    Attributes:
        tail: what follows the normalization, in order.
        absolute: the scale is |weight| + eps, as inplace-ABN has it.
        constant: training mode computes the same and writes no buffer: already safe.
    """

    tail: tuple[nn.Module, ...] = ()
    absolute: bool = False
    constant: bool = False


def understood(layer: nn.Module) -> Fused | None:
    """What a layer computes, or None where it is nothing that is known."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        trial = _randomized(layer)
        for positions in _SHAPES:
            x = torch.randn(_RECORDS, num_channels(layer), *positions, dtype=torch.float64)
            found = _run(trial.eval(), x)
            if found is not None:
                return _fitting(layer, trial, x, found)
    return _declared(layer)


def _randomized(layer: nn.Module) -> Any:
    trial: Any = copy.deepcopy(layer).cpu().double().eval()
    for hooks in (trial._forward_hooks, trial._forward_pre_hooks):
        hooks.clear()
    if trial.running_mean is not None:
        trial.running_mean.normal_()
        trial.running_var.uniform_(0.5, 1.5)
    if trial.weight is not None:
        trial.weight.normal_()
        trial.bias.normal_()
    return trial


def _run(trial: nn.Module, x: Tensor) -> Tensor | None:
    try:
        out = trial(x.clone())
    except Exception:  # not made for this many dimensions, or for no CPU
        return None
    out = out[0] if isinstance(out, tuple) else out
    return out if isinstance(out, Tensor) and out.shape == x.shape else None


def _fitting(layer: nn.Module, trial: Any, x: Tensor, found: Tensor) -> Fused | None:
    for tail in _tails(layer):
        for absolute in (False, True):
            if _agree(_expected(trial, x, tail, absolute=absolute), found):
                return Fused(tail, absolute, constant=_is_constant(trial, x, found))
    return None


def _expected(trial: Any, x: Tensor, tail: tuple[nn.Module, ...], *, absolute: bool) -> Tensor:
    eps, weight = getattr(trial, "eps", 1e-5), trial.weight
    if absolute and weight is not None:
        weight = weight.abs() + eps
    mean = trial.running_mean
    out = F.batch_norm(
        x, mean, trial.running_var, weight, trial.bias, training=mean is None, eps=eps
    )
    for module in tail:
        out = copy.deepcopy(module).cpu().double().eval()(out)
    return out


def _agree(wanted: Tensor, found: Tensor) -> bool:
    return torch.allclose(wanted, found.double(), rtol=1e-4, atol=1e-5)


def _is_constant(trial: Any, x: Tensor, evaluated: Tensor) -> bool:
    if trial.running_mean is None:
        return False
    before = (trial.running_mean.clone(), trial.running_var.clone())
    out = _run(trial.train(), x)
    still = all(map(torch.equal, before, (trial.running_mean, trial.running_var)))
    return still and out is not None and _agree(evaluated, out)


def _tails(layer: Any) -> Iterator[tuple[nn.Module, ...]]:
    """What may follow: the layer's own submodules, what it names, then common activations."""
    own = tuple(m for name in _FUSED if isinstance(m := getattr(layer, name, None), nn.Module))
    if own:
        yield own
    named = _named_activation(layer)
    if named is not None:
        yield (named,) if not isinstance(named, nn.Identity) else ()
    yield ()
    for kind in _ACTIVATIONS:
        yield (kind(),)
    yield (nn.LeakyReLU(0.01),)
    yield (nn.ELU(),)


def _named_activation(layer: Any) -> nn.Module | None:
    """The activation that attributes of the layer name, such as "leaky_relu" and a slope."""
    name = next((v for key in _NAMES if isinstance(v := getattr(layer, key, None), str)), None)
    if name is None:
        return None
    slope = next(
        (float(v) for key in _SLOPES if isinstance(v := getattr(layer, key, None), (int, float))),
        None,
    )
    known = {
        "leaky_relu": nn.LeakyReLU(0.01 if slope is None else slope),
        "elu": nn.ELU(1.0 if slope is None else slope),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
        "swish": nn.SiLU(),
        "identity": nn.Identity(),
        "none": nn.Identity(),
        "": nn.Identity(),
    }
    return known.get(name.lower().replace("leakyrelu", "leaky_relu"))


def _declared(layer: Any) -> Fused | None:
    """Where the layer cannot run here: what it says of itself, if its scale leaves no doubt."""
    activation = _named_activation(layer)
    positive = layer.weight is None or bool((layer.weight >= 0).all())
    if activation is None or not positive:
        return None
    return Fused(() if isinstance(activation, nn.Identity) else (activation,))
