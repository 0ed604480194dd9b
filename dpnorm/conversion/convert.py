"""convert: a copy of a model in which BatchNorm is replaced."""

import copy
from typing import Literal, get_args

from torch import nn

from dpnorm.conversion.blocks import rewrite_blocks
from dpnorm.conversion.dimensions import dimensions_by_order, dimensions_by_run, unknown
from dpnorm.conversion.inplace import inplace_activations, relied_upon
from dpnorm.conversion.manifest import Origin
from dpnorm.conversion.recipes import Groups, Init, variants
from dpnorm.conversion.refinement import Progress, refine, stage
from dpnorm.conversion.result import Conversion
from dpnorm.conversion.surgery import Eps, Select, batch_norms, copied, replace_layers
from dpnorm.conversion.synthesis import has_statistics, synthesize
from dpnorm.conversion.tracing import run_order
from dpnorm.detection import Verdict, check
from dpnorm.detection.inputs import Inputs
from dpnorm.errors import ConversionError, InputError, unknown_name


def convert(
    model: nn.Module,
    to: str = "group",
    *,
    groups: Groups = None,
    init: Init = "match",
    public_inputs: Inputs | Literal["synthesize"] | None = None,
    select: Select = None,
    eps: Eps = None,
    statistics_origin: Origin = "unknown",
    distill_steps: int = 0,
    record_shape: tuple[int, ...] | None = None,
    progress: Progress | None = None,
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
            "synthesize" makes such records from the BatchNorm statistics alone, without any data
            (`dpnorm.conversion.synthesis`), which takes about a minute for a small network.
        select: which layers: path patterns, or a function of (path, module); default all.
        eps: of the new layers, a number or a dict by path; default 1e-5, and for matched layers
            a few variances more, which keeps the function of records that differ from the
            population (`dpnorm.conversion.affine` says how). Frozen and folded layers keep theirs.
        statistics_origin: where the running statistics come from: "private", "public" or
            "unknown". It stands in the manifest, with a warning where they are private.
        distill_steps: of training on the original's logits on the public inputs; 0 for none, 600
            for a deep network of which matching alone keeps too little.
        record_shape: of one record, to synthesize; default where a linear layer comes first.
        progress: called with (stage, done, total) in synthesis, matching and distillation.

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
    if isinstance(public_inputs, str) and public_inputs != "synthesize":
        raise unknown_name("public_inputs", public_inputs, ("synthesize",))
    if distill_steps and public_inputs is None:
        raise InputError(
            "distill_steps needs records: pass public_inputs=, or public_inputs='synthesize'"
        )
    if isinstance(eps, float | int) and not eps >= 0:
        raise InputError(f"eps is {eps}: a number of at least 0 is needed")
    if not isinstance(model, nn.Module):
        raise ConversionError(f"convert takes a torch.nn.Module, not {type(model).__name__}")
    new_model = copied(model)
    if known[to].recipe is None:
        return Conversion(
            new_model, to, init, (), original=model, statistics_origin=statistics_origin
        )
    norms = batch_norms(new_model, select)
    records: Inputs | None
    if not isinstance(public_inputs, str):
        records = public_inputs
    elif norms and known[to].preserves != "exactly":
        records = synthesize(model, record_shape, seed=0, progress=stage(progress, "synthesis"))
    else:
        records = None  # what is exact needs no records
    ambiguous, inplace = unknown(norms), inplace_activations(new_model)
    needs_order = bool(ambiguous or inplace or (norms and known[to].wants_preceding))
    graphs = run_order(new_model) if needs_order else None
    dims = dimensions_by_order(new_model, ambiguous, graphs)
    if ambiguous and records is not None:
        dims |= dimensions_by_run(new_model, ambiguous, records)
    kept = relied_upon(new_model, graphs or ())
    new_model, changes, prepared = replace_layers(
        new_model,
        known[to],
        init=init,
        groups=groups,
        select=select,
        eps=eps,
        graphs=graphs,
        dims=dims,
    )
    rewritten = (*_out_of_place(new_model, kept), *prepared)
    if records is not None and changes and to != "folded":
        trained = any(has_statistics(layer) for _, layer in batch_norms(model, select))
        refine(
            model,
            new_model,
            [change.path for change in changes if change.before],  # added ones match nothing
            records,
            match=init == "match" and trained,
            distill_steps=distill_steps,
            progress=progress,
        )
    if records is not None and not changes and select is None:
        _require_no_other_coupling(new_model, records)
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
