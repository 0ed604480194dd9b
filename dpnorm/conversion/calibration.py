"""Setting converted layers by what they see on public records, layer by layer in one pass."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpnorm.conversion.kinds import has_plain_forward
from dpnorm.conversion.modes import evaluating
from dpnorm.conversion.unusual import understood
from dpnorm.detection.inputs import Inputs, batch_size, call, check_device
from dpnorm.norms import ChannelNorm

_CONSTANT = 1e-12  # the variance of a channel that does not vary: its scale is left alone

Moments = tuple[Tensor, Tensor]


def calibrate(
    original: nn.Module,
    converted: nn.Module,
    paths: Sequence[str],
    inputs: Inputs,
    *,
    match: bool,
) -> None:
    """Sets the converted layers at `paths` by public records, in place.

    A frozen layer takes its statistics from the records. With `match`, each layer's scale and
    shift are then set so that the mean and standard deviation of each channel of its output are
    those of the original layer on the same records. Later layers see the corrected outputs, so
    one forward pass of each model is enough.

    Args:
        original: the model with its BatchNorm layers; run in evaluation mode, state untouched.
        converted: the model to set.
        paths: the converted layers.
        inputs: at least two public records.
        match: whether to match output moments; without it only frozen statistics are set.
    """
    batch_size(inputs)
    check_device(original, inputs)
    targets: dict[str, Moments] = {}

    def note(path: str, layer: Any, x: Tensor) -> None:
        targets.setdefault(path, channel_moments(_evaluated(layer, x)))

    def correct(path: str, layer: nn.Module, x: Tensor) -> Tensor:
        norm = layer[0] if isinstance(layer, nn.Sequential) else layer  # [0]: before a fused act
        _set_norm(norm, x, targets.get(path))
        return layer.forward(x)  # not layer(x), whose hook this is

    with torch.no_grad(), evaluating(original), evaluating(converted):
        if match:
            with _hooked(original, paths, note):
                call(original, inputs)
        with _hooked(converted, paths, correct):
            call(converted, inputs)


def channel_moments(x: Tensor) -> Moments:
    """Mean and (biased) variance of each channel of (N, C, ...), in float64: two (C,) tensors."""
    flat = x.double().transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1, correction=0)


def _evaluated(layer: Any, x: Tensor) -> Tensor:
    """What a BatchNorm gives in evaluation, before an activation that may be fused with it."""
    mean, var, weight = layer.running_mean, layer.running_var, layer.weight
    eps = getattr(layer, "eps", 1e-5)
    if not has_plain_forward(layer) and (fused := understood(layer)) and fused.absolute:
        weight = weight.abs() + eps
    return F.batch_norm(x, mean, var, weight, layer.bias, training=mean is None, eps=eps)


def _set_norm(norm: nn.Module, x: Tensor, target: Moments | None) -> None:
    if isinstance(norm, ChannelNorm):
        mean, var = channel_moments(x)
        norm.statistics.running_mean.copy_(mean)
        norm.statistics.running_var.copy_(var)
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if target is None or weight is None or bias is None:
        return
    mean, var = channel_moments(norm.forward(x))
    gain = torch.where(var > _CONSTANT, torch.sqrt(target[1] / var.clamp_min(_CONSTANT)), 1.0)
    bias.copy_((bias.double() - mean) * gain + target[0])
    weight.mul_(gain.to(weight))


@contextlib.contextmanager
def _hooked(
    model: nn.Module, paths: Sequence[str], act: Callable[[str, nn.Module, Tensor], Tensor | None]
) -> Iterator[None]:
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: act(path, module, args[0])
        )
        for path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
