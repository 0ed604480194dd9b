"""check: does each record's contribution to the training step belong to that record alone?"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from dpnorm.detection.draws import Overwrite, extreme
from dpnorm.detection.families import is_batch_norm, is_uninitialized, uses_batch_statistics
from dpnorm.detection.inputs import Inputs, batch_size, check_device, tensors_in
from dpnorm.detection.isolation import RECORDS, Isolation
from dpnorm.detection.judgement import Doubt, doubts
from dpnorm.detection.loss_probes import Criterion
from dpnorm.detection.movement import rounding
from dpnorm.detection.preserve import SavedState, preserved
from dpnorm.detection.probes import batch_norm_findings, probe
from dpnorm.detection.report import Finding, LayerVerdict, Report, Verdict, finding
from dpnorm.detection.row_plan import row_plan
from dpnorm.detection.source import source_location
from dpnorm.detection.steps import trace_two_steps
from dpnorm.detection.swap import Exchange
from dpnorm.errors import DpnormError, InputError, unknown_name

PATHS = 12  # further seeds that are tried where a random draw decides what Python does


def check(
    model: nn.Module,
    inputs: Inputs,
    *,
    targets: Any = None,
    criterion: Criterion | None = None,
    loss_reduction: Literal["mean", "sum"] = "mean",
    seed: int = 0,
) -> Report:
    """Judges a model in the modes in which it is given, module by module.

    Two training steps are run under record masks (`dpnorm.provenance`). Where nothing but a
    record's own bit reaches its rows, at the output and at every module whose gradients Opacus
    samples, forward and backward, and no state, no control flow and no unknown operator carries a
    bit, the model is **proven**. What the masks cannot rule out is probed with numbers: other
    records are exchanged, added, and what belongs to a record must not move. What moves
    **refutes** the model, with the movement as witness. Neither is **unproven**.

    The model comes back as it was: modes, parameters, buffers, gradients and random state, also
    after an exception.

    Formal guarantee: a proof holds for the path that was executed, with inputs of this shape
    (their first four records) and these modes; see docs/limits.md.

    Args:
        model: any module; `train()` and `eval()` are never called on it.
        inputs: a tensor (B, ...), a tuple of them, or a dict of keyword tensors; the batch is
            dimension 0 and B >= 2.
        targets: what `criterion` takes as its second argument, batch first.
        criterion: (output, targets) -> scalar loss; without it the loss is not judged.
        loss_reduction: "mean" or "sum", as the engine will be told.
        seed: of the random records.

    Raises:
        InputError: inputs of a wrong form or on another device, or a forward pass that raises.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"check takes a torch.nn.Module, not {type(model).__name__}")
    if loss_reduction not in ("mean", "sum"):
        raise unknown_name("loss_reduction", loss_reduction, ("mean", "sum"))
    if criterion is not None and targets is None:
        raise InputError("a criterion was given without targets: pass targets= of the same batch")
    batch = batch_size(inputs)
    check_device(model, inputs)
    _require_initialized(model)
    records = min(batch, RECORDS)
    with preserved(model) as state:
        trace = partial(_traced, model, inputs, targets, criterion, records, state=state)
        isolation, exchange = _first_trace(trace, seed)
        found = doubts(isolation, judged_loss=criterion is not None)
        for other in _other_paths(trace, seed) if isolation.coins else ():
            if any(doubt.fatal for doubt in found):
                break
            found = doubts(other, judged_loss=criterion is not None)
        found += _opaque_modules(model)
        limit = rounding([*tensors_in(inputs), *model.parameters()])
        witnessed = list(batch_norm_findings(model, isolation.batch_norms, limit))
        for path in set(isolation.batch_norms) - {f.path for f in witnessed}:
            found.append(Doubt("DPN101", path, "uses the statistics of the batch"))
        if exchange is None:
            found.append(Doubt("DPN105", "", "raises where other records stand beside a record"))
        else:
            try:
                witnessed += probe(
                    model,
                    inputs,
                    targets,
                    criterion,
                    state=state,
                    loss_reduction=loss_reduction,
                    exchange=exchange,
                    traced=isolation,
                    thorough=any(d.fatal for d in found) or (batch > RECORDS and not witnessed),
                    count=not witnessed,
                    suspected=[doubt for doubt in found if doubt.fatal],
                )
            except DpnormError:
                raise
            except Exception as error:  # the model takes its own records and not others
                message = f"raises where other records stand beside a record: {_short(error)}"
                found.append(Doubt("DPN105", "", message))
    return _report(
        model,
        found,
        witnessed,
        isolation,
        loss="not judged" if criterion is None else f"judged as a {loss_reduction}",
        seed=seed,
    )


def _first_trace(trace: Callable[..., Isolation], seed: int) -> tuple[Isolation, Exchange | None]:
    """Two traced steps, the second with other records as far as the model takes them."""
    for exchange in (Exchange(seed), Exchange(seed, large=False)):
        try:
            return trace(seed=seed, exchange=exchange), exchange
        except InputError:  # it may be the other records that the model refuses
            continue
    return trace(seed=seed), None


def _other_paths(trace: Callable[..., Isolation], seed: int) -> Iterator[Isolation]:
    """Traced steps in which the coins that decide what Python does fall otherwise."""
    for high in (False, True):
        try:
            found = trace(seed=seed, overwrite=extreme(high=high))
        except InputError:  # all coins alike may be what the model never meets, and refuses
            continue
        yield found
    for other in range(seed + 1, seed + 1 + PATHS):
        yield trace(seed=other)


def _traced(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    records: int,
    *,
    seed: int,
    state: SavedState,
    exchange: Exchange | None = None,
    overwrite: Overwrite | None = None,
) -> Isolation:
    """Two traced steps; the model is as before them, and what it raises is an InputError."""
    try:
        return trace_two_steps(
            model, inputs, targets, criterion, records, seed, state, exchange, overwrite
        )
    except DpnormError:
        raise
    except Exception as error:
        shapes = [tuple(t[:records].shape) for t in tensors_in(inputs)]
        raise InputError(
            f"the model raised {type(error).__name__} on inputs of shape {shapes}: {_short(error)}"
        ) from error
    finally:
        state.restore()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())


def _require_initialized(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if is_uninitialized(module):
            raise InputError(
                f"{path or 'the model'} is a lazy layer that has seen no input: run the model "
                "once on a batch, then check it"
            )


def _opaque_modules(model: nn.Module) -> list[Doubt]:
    """Scripted modules, whose compiled operators may bypass the dispatcher."""
    return [
        Doubt("DPN901", path, "a scripted module may run fused operators that are not seen")
        for path, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ][:1]


def _report(
    model: nn.Module,
    found: list[Doubt],
    witnessed: list[Finding],
    isolation: Isolation,
    *,
    loss: str,
    seed: int,
) -> Report:
    modules = dict(model.named_modules())
    refuted = any(item.witness is not None for item in witnessed)
    fatal = [doubt for doubt in found if doubt.fatal]
    findings = list(witnessed)
    for doubt in found:
        if doubt.fatal and refuted:
            continue  # the witnesses say it with numbers
        unnamed = doubt.fatal and doubt.code not in UNDECIDED
        findings.append(
            finding(
                "DPN902" if unnamed else doubt.code,
                doubt.path,
                modules.get(doubt.path, model),
                doubt.location,
                f"{doubt.message} ({doubt.code}), and no witness was found"
                if unnamed
                else doubt.message,
            )
        )
    guilty = {f.path for f in witnessed if f.witness is not None}
    findings += _fragile(model)
    findings += [f for f in _opacus_findings(model, isolation) if f.path not in guilty]
    order = {path: i for i, path in enumerate(modules)}
    unique = {(f.code, f.path): f for f in reversed(findings)}
    ordered = tuple(sorted(unique.values(), key=lambda f: (order.get(f.path, 0), f.code)))
    undecided = bool(fatal) or any(item.code in UNDECIDED for item in witnessed)
    verdict = Verdict.REFUTED if refuted else Verdict.UNPROVEN if undecided else Verdict.PROVEN
    return Report(
        verdict=verdict,
        findings=ordered,
        layers=_layers(model, ordered, verdict),
        opacus=_opacus(
            model, ordered, impossible=refuted or any(d.code == "DPN502" for d in fatal)
        ),
        model=type(model).__name__,
        loss=loss,
        seed=seed,
        rows=row_plan(isolation),
    )


UNDECIDED = {"DPN901", "DPN902", "DPN105", "DPN502"}  # they forbid a proof without a witness


def _fragile(model: nn.Module) -> list[Finding]:
    """BatchNorm layers that use constants only because they are in evaluation mode."""
    return [
        finding(
            "DPN401",
            path,
            module,
            source_location(module),
            "normalizes with constants now; model.train() would couple the records",
        )
        for path, module in model.named_modules()
        if is_batch_norm(module) and not uses_batch_statistics(module)
    ]


def _opacus_findings(model: nn.Module, isolation: Isolation) -> Iterable[Finding]:
    """What keeps stock Opacus from training a model whose records are isolated."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    modules = dict(model.named_modules())
    for path, place in isolation.in_place.items():
        message = "its output is modified in place, which Opacus's hooks do not survive"
        yield finding("DPN501", path, modules[path], place, message)
    for path, module in modules.items():
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        if own and list(module.buffers()) and GradSampleModule.validate(module, strict=False):
            message = "has buffers beside trainable parameters, which Opacus refuses"
            yield finding("DPN505", path, module, source_location(module), message)
    for path, module in modules.items():
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        validator = ModuleValidator.VALIDATORS.get(type(module))
        if own and validator is not None and not is_batch_norm(module):
            for error in validator(module):
                message = f"Opacus's validator refuses it: {' '.join(str(error).split())}"
                yield finding("DPN502", path, module, source_location(module), message)
    first: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            if id(module) in first:
                message = f"is the same module as {first[id(module)] or 'the model'!r}"
                yield finding("DPN504", path, module, source_location(module), message)
            first.setdefault(id(module), path)


def _layers(
    model: nn.Module, findings: tuple[Finding, ...], verdict: Verdict
) -> tuple[LayerVerdict, ...]:
    verdicts = []
    for path, module in model.named_modules():
        mine = [f for f in findings if f.path == path]
        if list(module.children()) and not mine:
            continue
        if any(f.witness is not None for f in mine):
            own = Verdict.REFUTED
        else:
            own = Verdict.PROVEN if verdict == Verdict.PROVEN else Verdict.UNPROVEN
        codes = tuple(f.code for f in mine)
        verdicts.append(LayerVerdict(path, type(module).__name__, own, codes))
    return tuple(verdicts)


def _opacus(
    model: nn.Module, findings: tuple[Finding, ...], *, impossible: bool
) -> Literal["ready", "dpnorm", "no"]:
    """Who yields one gradient a record: stock Opacus, only an engine that reads masks, or none."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    if impossible:
        return "no"
    codes = {f.code for f in findings}
    refused = ModuleValidator.validate(model) or GradSampleModule.validate(model, strict=False)
    return "dpnorm" if refused or codes & {"DPN501", "DPN502", "DPN503", "DPN505"} else "ready"
