"""convert: a copy of a model in which BatchNorm is replaced."""

import copy
from typing import Any, get_args

from torch import nn

from dpnorm.conversion.blocks import rewrite_blocks
from dpnorm.conversion.calibration import calibrate
from dpnorm.conversion.dimensions import dimensions_by_order, dimensions_by_run, unknown
from dpnorm.conversion.inplace import inplace_activations, relied_upon
from dpnorm.conversion.manifest import Origin
from dpnorm.conversion.recipes import Groups, Init, variants
from dpnorm.conversion.result import Conversion
from dpnorm.conversion.surgery import Select, batch_norms, copied, replace_layers
from dpnorm.conversion.tracing import run_order
from dpnorm.detection import Verdict, check
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
    statistics_origin: Origin = "unknown",
) -> Conversion:
    """Replaces the BatchNorm layers of a copy of `model`.

    In-place activations, and blocks with in-place operations in their own forward that can be
    traced, work out of place in the copy, so that Opacus's hooks can train it.

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
        statistics_origin: where the running statistics come from: "private", "public" or
            "unknown". It stands in the manifest, with a warning where they are private.

    Returns:
        A Conversion with the new model and its changes; no changes when it has no BatchNorm.

    Raises:
        InputError: an unknown variant or initialization, or public inputs of a wrong form.
        ConversionError: a layer cannot take the variant; the message names the layer. Or the model
            has no layer to exchange and `check`, on the public inputs, refutes it all the same.

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
    if statistics_origin not in get_args(Origin):
        raise unknown_name("origin of statistics", statistics_origin, get_args(Origin))
    if not isinstance(model, nn.Module):
        raise ConversionError(f"convert takes a torch.nn.Module, not {type(model).__name__}")
    new_model = copied(model)
    if known[to].recipe is None:
        return Conversion(
            new_model, to, init, (), original=model, statistics_origin=statistics_origin
        )
    norms = batch_norms(new_model, select)
    ambiguous, inplace = unknown(norms), inplace_activations(new_model)
    needs_order = bool(ambiguous or inplace or (norms and known[to].wants_preceding))
    graphs = run_order(new_model) if needs_order else None
    dims = dimensions_by_order(new_model, ambiguous, graphs)
    if ambiguous and public_inputs is not None:
        dims |= dimensions_by_run(new_model, ambiguous, public_inputs)
    kept = relied_upon(new_model, graphs or ())
    new_model, changes = replace_layers(
        new_model, known[to], init=init, groups=groups, select=select, graphs=graphs, dims=dims
    )
    rewritten = _out_of_place(new_model, kept)
    if public_inputs is not None and changes and to != "folded":
        trained = any(_has_statistics(layer) for _, layer in batch_norms(model, select))
        calibrate(
            model,
            new_model,
            [change.path for change in changes],
            public_inputs,
            match=init == "match" and trained,
        )
    if public_inputs is not None and not changes and select is None:
        _require_no_other_coupling(new_model, public_inputs)
    return Conversion(
        new_model,
        to,
        init,
        changes,
        original=model,
        rewritten=rewritten,
        kept_inplace=tuple(sorted(kept)),
        statistics_origin=statistics_origin,
    )


def _out_of_place(model: nn.Module, kept: set[str]) -> tuple[str, ...]:
    """Sets in-place activations out of place, but for `kept`, and rewrites blocks."""
    found = [(path, module) for path, module in inplace_activations(model) if path not in kept]
    for _, module in found:
        module.inplace = False
    return (*(path for path, _ in found), *rewrite_blocks(model))


def _require_no_other_coupling(model: nn.Module, inputs: Inputs) -> None:
    """Raises check's findings where a model without BatchNorm layers couples records."""
    report = check(copy.deepcopy(model).train(), inputs)
    if report.verdict != Verdict.REFUTED:
        return
    lines = [
        f"{f.code} {f.path or 'the model'} ({f.location or 'no source line'}): {f.message} "
        f"Remedy: {f.remedy}"
        for f in report.findings
    ]
    raise ConversionError(
        "the model has no BatchNorm layer to exchange, but its records are coupled in functions "
        "or hand-written code, which has to be changed by hand:\n" + "\n".join(lines)
    )


def _has_statistics(layer: Any) -> bool:
    mean, var = layer.running_mean, layer.running_var
    return mean is not None and bool((mean != 0).any() or (var != 1).any())
