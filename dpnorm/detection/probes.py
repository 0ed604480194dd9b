"""The probes: what the masks cannot rule out is measured; what moves is a witness."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws, seed_draws
from dpnorm.detection.families import is_batch_norm, uses_batch_statistics
from dpnorm.detection.inputs import Inputs, batch_size, call, tensors_in
from dpnorm.detection.isolation import Isolation
from dpnorm.detection.judgement import Doubt
from dpnorm.detection.loss_probes import Criterion, coupled_loss, misreduced
from dpnorm.detection.movement import COUNT_ROUNDING, movement, rounding
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.quick import Movements, quick_movements
from dpnorm.detection.report import Finding, finding
from dpnorm.detection.sampled import sampled_modules
from dpnorm.detection.source import source_location
from dpnorm.detection.swap import Exchange, Trace, plain_run, run
from dpnorm.gradients import captured


def probe(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    *,
    state: SavedState,
    loss_reduction: str,
    exchange: Exchange,
    traced: Isolation,
    thorough: bool,
    count: bool,
    suspected: Sequence[Doubt],
) -> Iterator[Finding]:
    """Findings with witnesses, each (path, code) once.

    Args:
        model: in its modes; restored by `state` after each run.
        inputs: of `batch_size` records.
        targets: for the criterion.
        criterion: None leaves the loss unjudged.
        state: restores buffers.
        loss_reduction: that the engine will be told.
        exchange: what records are exchanged for.
        traced: what two traced steps have shown.
        count: run the quick probe, and look at the reduction of the loss.
        thorough: exchange records and look at every module; otherwise only if the quick probe
            sees a movement.
        suspected: what the masks could not rule out; it names what the probes see.
    """
    found: dict[tuple[str, str], Finding] = {}
    batch, seed = batch_size(inputs), exchange.seed
    with torch.no_grad():
        quick = None
        if count:
            quick = quick_movements(model, inputs, batch, state, exchange, traced)
            thorough |= quick.exchanged > rounding(tensors_in(inputs))
        for keep in sorted({0, batch - 1}) if thorough else ():
            base = run(model, inputs, state, seed)
            swapped = run(model, exchange.others(inputs, keep), state, seed)
            for item in (
                *_coupled_modules(base, swapped, batch, keep, suspected),
                *_written_state(model, base, swapped),
                *coupled_loss(base.output, targets, criterion, batch, keep, exchange),
            ):
                found.setdefault((item.path, item.code), item)
            if not found:
                for item in _coupled_gradients(model, inputs, batch, keep, state, exchange):
                    found.setdefault((item.path, item.code), item)
        if thorough and not found:
            for item in _carried(model, inputs, batch, state, exchange):
                found.setdefault((item.path, item.code), item)
        if quick is not None and not found:
            for item in _moved(model, quick, inputs, suspected):
                found.setdefault((item.path, item.code), item)
            if criterion is not None:
                output = plain_run(model, inputs, state, seed)
                for item in misreduced(output, targets, criterion, batch, loss_reduction):
                    found.setdefault((item.path, item.code), item)
    if quick is not None and quick.fixed and not found:
        yield finding(
            "DPN902",
            "",
            model,
            source_location(model),
            "runs on no smaller batch, so that dependence on the number of records is not seen",
        )
    yield from found.values()


def batch_norm_findings(
    model: nn.Module, moved: dict[str, float], dtype_limit: float
) -> Iterator[Finding]:
    """A finding for every BatchNorm-family layer that moved a record by the others."""
    for path, size in moved.items():
        if size > dtype_limit:
            module = model.get_submodule(path)
            message = (
                "normalizes with the statistics of the batch: exchanging the other records "
                f"moves a record's output by {size:.3g} of its size"
            )
            yield finding("DPN101", path, module, source_location(module), message, size)


def _coupled_modules(
    base: Trace, swapped: Trace, batch: int, keep: int, suspected: Sequence[Doubt]
) -> list[Finding]:
    """Modules whose output row moved although their input row did not, innermost only."""
    findings: list[Finding] = []
    for before, after in zip(base.calls, swapped.calls, strict=False):
        path, module, given, made = before
        if path != after[0] or is_batch_norm(module):
            continue
        if movement(given, after[2], keep, batch) > 0:
            continue
        moved = movement(made, after[3], keep, batch)
        inside = f"{path}." if path else ""
        explained = any(f.path.startswith(inside) for f in findings) or any(
            p.startswith(inside) and uses_batch_statistics(m) for p, m, _, _ in base.calls
        )
        if moved > rounding(made) and not explained:
            code, location = _named(path, suspected)
            message = (
                f"exchanging the other records moves a record's output by {moved:.3g} of its size"
            )
            findings.append(
                finding(code, path, module, location or source_location(module), message, moved)
            )
    return findings


def _named(path: str, suspected: Sequence[Doubt]) -> tuple[str, str]:
    """The code and the place that the masks suggest for a module that was seen to couple."""
    for doubt in suspected:
        if doubt.code in ("DPN103", "DPN105", "DPN102") and doubt.path == path:
            return doubt.code, doubt.location
    return "DPN102", ""


def _written_state(model: nn.Module, base: Trace, swapped: Trace) -> Iterator[Finding]:
    """Buffers and parameters whose content after a forward pass depends on the records."""
    paths = {module: path for path, module in model.named_modules()}
    for (module, name), content in base.buffers.items():
        other = swapped.buffers.get((module, name))
        if other is None or uses_batch_statistics(module) or torch.equal(content, other):
            continue
        moved = movement([content.reshape(1, -1)], [other.reshape(1, -1)], 0, 1)
        message = f"writes its buffer {name!r} from the records in the forward pass"
        yield finding("DPN201", paths[module], module, source_location(module), message, moved)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for (parameter, content), (_, other) in zip(base.parameters, swapped.parameters, strict=True):
        if not torch.equal(content, other):
            path, _, name = names[parameter].rpartition(".")
            module = model.get_submodule(path)
            moved = movement([content.reshape(1, -1)], [other.reshape(1, -1)], 0, 1)
            message = f"writes its parameter {name!r} from the records in the forward pass"
            yield finding("DPN201", path, module, source_location(module), message, moved)


def _coupled_gradients(
    model: nn.Module, inputs: Inputs, batch: int, keep: int, state: SavedState, exchange: Exchange
) -> Iterator[Finding]:
    """Modules at which a record's output gradient moves although its forward pass did not.

    The record's row of the output gets a fixed random gradient, the others get other ones.
    """
    modules = list(sampled_modules(model))
    runs = []
    seed = exchange.seed
    for given, others in ((inputs, None), (exchange.others(inputs, keep), seed + 1)):
        state.restore_buffers()
        seed_draws(seed)
        with torch.enable_grad(), captured(modules) as calls:
            with ConstantDraws():
                live = [t for t in tensors_in(call(model, given)) if t.requires_grad]
            if not live:
                return
            generator = torch.Generator().manual_seed(seed)
            seeds = [torch.randn(t.shape, generator=generator).to(t) for t in live]
            if others is not None:
                seeds = [_other_rows(gradient, keep, batch, others) for gradient in seeds]
            with ConstantDraws():
                torch.autograd.backward(live, seeds)
        state.restore()
        runs.append(calls)
    for before, after in zip(*runs, strict=False):
        if before.gradient is None or after.gradient is None:
            continue
        moved = movement([before.gradient], [after.gradient], keep, batch)
        if moved > COUNT_ROUNDING * rounding([before.gradient]):
            message = (
                "exchanging the other records moves the gradient that reaches a record's output "
                f"by {moved:.3g} of its size"
            )
            yield finding(
                "DPN102", before.path, before.module, source_location(before.module), message, moved
            )


def _other_rows(gradient: Tensor, keep: int, batch: int, seed: int) -> Tensor:
    """Another gradient for every record but one; all of it where rows are not the records."""
    if not gradient.dim() or len(gradient) != batch:
        return gradient
    other = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed))
    other = other.to(gradient)
    other[keep] = gradient[keep]
    return other


def _carried(
    model: nn.Module, inputs: Inputs, batch: int, state: SavedState, exchange: Exchange
) -> Iterator[Finding]:
    """Whether the outputs of a batch depend on the batch that ran before it."""
    outputs = []
    seed = exchange.seed
    for earlier in (inputs, exchange.others(inputs, 0), exchange.one(inputs, 0)):
        state.restore_buffers()
        seed_draws(seed)
        with ConstantDraws():
            call(model, earlier)
            seed_draws(seed)
            outputs.append(tensors_in(call(model, inputs)))
        state.restore_buffers()
    moved = max(
        (
            movement([a], [b], row, batch)
            for other in outputs[1:]
            for a, b in zip(outputs[0], other, strict=False)
            for row in range(batch)
        ),
        default=0.0,
    )
    if moved > rounding(outputs[0]):
        message = f"another batch before it moves a record's output by {moved:.3g} of its size"
        yield finding("DPN202", "", model, source_location(model), message, moved)


def _moved(
    model: nn.Module, quick: Movements, inputs: Inputs, suspected: Sequence[Doubt]
) -> Iterator[Finding]:
    """What the quick probe saw and no other did: in the model as a whole."""
    limit = rounding(tensors_in(inputs))
    if quick.exchanged > limit:
        code, place = _named("", suspected)
        message = f"exchanging records moves a record's output by {quick.exchanged:.3g} of its size"
        place = place or source_location(model)
        yield finding(code, "", model, place, message, quick.exchanged)
    elif quick.counted > COUNT_ROUNDING * limit:
        message = f"fewer records move a record's output by {quick.counted:.3g} of its size"
        yield finding("DPN104", "", model, source_location(model), message, quick.counted)
