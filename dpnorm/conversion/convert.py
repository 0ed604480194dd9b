"""convert: a copy of a model in which BatchNorm is replaced."""

from typing import Any, get_args

from torch import nn

from dpnorm.conversion.calibration import calibrate
from dpnorm.conversion.recipes import Groups, Init, variants
from dpnorm.conversion.result import Conversion
from dpnorm.conversion.surgery import Select, batch_norms, copied, replace_layers
from dpnorm.detection.inputs import Inputs
from dpnorm.errors import ConversionError, unknown_name


def convert(
    model: nn.Module,
    to: str = "group",
    *,
    groups: Groups = None,
    init: Init = "match",
    public_inputs: Inputs | None = None,
    select: Select = None,
) -> Conversion:
    """Replaces the BatchNorm layers of a copy of `model`.

    Args:
        model: any module; it is never changed. Device, dtype, training mode, hooks and
            `requires_grad` of what is replaced are kept.
        to: a name in `dpnorm.variants()`; "batch" changes nothing.
        groups: for "group": a number, a function of the number of channels, or a dict by path;
            default 16 channels a group.
        init: "match" sets scale and shift so that the function of a trained model is kept
            (`dpnorm.conversion.moments` has the formula), "copy" takes the BatchNorm's own,
            "reset" starts with 1 and 0. A BatchNorm whose statistics were never measured has
            nothing to match and is copied.
        public_inputs: public records (B, ...), as the model takes them, B >= 2. Frozen layers
            take their statistics from them, and "match" measures on them instead of assuming.
        select: which layers: path patterns, or a function of (path, module); default all.

    Returns:
        A Conversion with the new model and its changes; no changes when it has no BatchNorm.

    Raises:
        InputError: an unknown variant or initialization, or public inputs of a wrong form.
        ConversionError: a layer cannot take the variant; the message names the layer.

    Statistics and weights learned from private data stay in the converted model, matched
    parameters included; no later epsilon covers them.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))
    >>> convert(net, to="group").model[1]  # doctest: +ELLIPSIS
    GroupNorm(2, 32, ...)
    """
    known = variants()
    if to not in known:
        raise unknown_name("variant", to, known)
    if init not in get_args(Init):
        raise unknown_name("initialization", init, get_args(Init))
    if not isinstance(model, nn.Module):
        raise ConversionError(f"convert takes a torch.nn.Module, not {type(model).__name__}")
    new_model, changes = replace_layers(
        copied(model), known[to], init=init, groups=groups, select=select
    )
    if public_inputs is not None and changes:
        trained = any(_has_statistics(layer) for _, layer in batch_norms(model, select))
        calibrate(
            model,
            new_model,
            [change.path for change in changes],
            public_inputs,
            match=init == "match" and trained,
        )
    return Conversion(new_model, to, init, changes)


def _has_statistics(layer: Any) -> bool:
    mean, var = layer.running_mean, layer.running_var
    return mean is not None and bool((mean != 0).any() or (var != 1).any())
