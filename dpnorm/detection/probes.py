"""The probes: what the masks cannot rule out is measured; what moves is a witness."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpnorm.detection.draws import ConstantDraws
from dpnorm.detection.families import is_batch_norm, uses_batch_statistics
from dpnorm.detection.inputs import Inputs, batch_size, call, map_tensors, tensors_in
from dpnorm.detection.judgement import Doubt
from dpnorm.detection.preserve import SavedState
from dpnorm.detection.quick import Movements, loss_scale, quick_movements
from dpnorm.detection.report import Finding, finding
from dpnorm.detection.sampled import sampled_modules
from dpnorm.detection.source import source_location
from dpnorm.detection.swap import Trace, movement, run, swap_one, swap_others
from dpnorm.errors import InputError
from dpnorm.gradients import captured

# Below this a row's movement may be rounding: exchanging the other records can change the order
# of a sum. Coupling found by exchanging them for records ten times as large shows far more.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE_ROUNDING = 5e-2  # bfloat16 and half
COUNT_ROUNDING = 10  # a batch of another length takes other kernels: rounding may be larger

Criterion = Callable[[Any, Any], Tensor]


def probe(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    *,
    state: SavedState,
    loss_reduction: str,
    seed: int,
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
        seed: of the random records.
        count: run the quick probe, and look at the reduction of the loss.
        thorough: exchange records and look at every module; otherwise only if the quick probe
            sees a movement.
        suspected: what the masks could not rule out; it names what the probes see.
    """
    found: dict[tuple[str, str], Finding] = {}
    batch = batch_size(inputs)
    with torch.no_grad():
        quick = None
        if count:
            quick = quick_movements(model, inputs, batch, state, seed)
            thorough |= quick.exchanged > rounding(tensors_in(inputs))
        for keep in sorted({0, batch - 1}) if thorough else ():
            base = run(model, inputs, state, seed)
            swapped = run(model, swap_others(inputs, keep, seed), state, seed)
            for item in (
                *_coupled_modules(base, swapped, batch, keep, suspected),
                *_written_state(model, base, swapped),
                *_coupled_loss(base, targets, criterion, batch, keep, seed),
            ):
                found.setdefault((item.path, item.code), item)
            if not found:
                for item in _coupled_gradients(model, inputs, batch, keep, state, seed):
                    found.setdefault((item.path, item.code), item)
        if thorough and not found:
            for item in _carried(model, inputs, batch, state, seed):
                found.setdefault((item.path, item.code), item)
        if quick is not None and not found:
            for item in (
                *_moved(model, quick, inputs, suspected),
                *_misreduced(model, inputs, targets, criterion, state, loss_reduction, seed),
            ):
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


def rounding(tensors: list[Tensor]) -> float:
    """The movement below which a difference may be rounding, by the coarsest dtype."""
    kinds = [ROUNDING.get(t.dtype, COARSE_ROUNDING) for t in tensors if t.is_floating_point()]
    return max(kinds, default=0.0)


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
    model: nn.Module, inputs: Inputs, batch: int, keep: int, state: SavedState, seed: int
) -> Iterator[Finding]:
    """Modules at which a record's output gradient moves although its forward pass did not.

    The record's row of the output gets a fixed random gradient, the others get other ones.
    """
    modules = list(sampled_modules(model))
    runs = []
    for given, others in ((inputs, None), (swap_others(inputs, keep, seed), seed + 1)):
        state.restore_buffers()
        torch.manual_seed(seed)
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
    model: nn.Module, inputs: Inputs, batch: int, state: SavedState, seed: int
) -> Iterator[Finding]:
    """Whether the outputs of a batch depend on the batch that ran before it."""
    outputs = []
    for earlier in (inputs, swap_others(inputs, 0, seed), swap_one(inputs, 0, seed)):
        state.restore_buffers()
        torch.manual_seed(seed)
        with ConstantDraws():
            call(model, earlier)
            torch.manual_seed(seed)
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


def _coupled_loss(
    base: Trace, targets: Any, criterion: Criterion | None, batch: int, keep: int, seed: int
) -> Iterator[Finding]:
    """Whether a record's output gradient depends on the outputs and targets of the others."""
    if criterion is None:
        return
    outputs = [t for t in tensors_in(base.output) if t.is_floating_point()]
    if not outputs:
        return
    others = swap_others((*outputs, targets), keep, seed)
    assert isinstance(others, tuple)
    gradients = []
    for values, wanted in ((outputs, targets), (list(others[:-1]), others[-1])):
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            loss = criterion(_refill(base.output, leaves), wanted)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise InputError("the criterion must return a scalar loss tensor")
            if not loss.requires_grad:
                return
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        gradients.append([g for g in found if g is not None])
    moved = movement(gradients[0], gradients[1], keep, batch)
    if moved <= rounding(outputs):
        return
    code = "DPN302" if _parallel(gradients[0], gradients[1], keep, batch) else "DPN301"
    message = (
        "exchanging the other records' outputs and targets moves the gradient of a record's "
        f"output by {moved:.3g} of its size"
    )
    yield finding(code, "", criterion, "", message, moved)


def _parallel(before: list[Tensor], after: list[Tensor], row: int, batch: int) -> bool:
    """Whether one record's gradient only changed its length: another divisor, the same loss."""
    a = torch.cat([g[row].flatten().double() for g in before if g.dim() and len(g) == batch])
    b = torch.cat([g[row].flatten().double() for g in after if g.dim() and len(g) == batch])
    size = a.norm() * b.norm()
    return bool(size > 0 and (a @ b) / size > 1 - 1e-6)


def _misreduced(
    model: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    state: SavedState,
    loss_reduction: str,
    seed: int,
) -> Iterator[Finding]:
    """Whether the loss is a mean or a sum over records, as the engine will be told."""
    if criterion is None:
        return
    output = run(model, inputs, state, seed).output
    batch = batch_size(inputs)
    rows = [t for t in tensors_in(output) if t.is_floating_point() and t.dim()]
    if not rows or any(len(t) != batch for t in rows):
        message = "its reduction could not be judged: the rows of the output are not the records"
        yield finding("DPN902", "", criterion, "", message)
        return
    ratios = loss_scale(criterion, output, targets, batch)
    expected = batch / (batch + 1) if loss_reduction == "mean" else 1.0
    limit = COUNT_ROUNDING * rounding(rows)
    wrong = [abs(ratio / expected - 1) for ratio in ratios if abs(ratio / expected - 1) > limit]
    if not wrong:
        return
    other = 1.0 if loss_reduction == "mean" else batch / (batch + 1)
    swapped = all(abs(ratio / other - 1) <= limit for ratio in ratios)
    code = "DPN303" if swapped else "DPN302"
    message = (
        f"one record more scales a record's gradient by {ratios[0]:.3g}; a {loss_reduction} over "
        f"records would scale it by {expected:.3g}"
    )
    yield finding(code, "", criterion, "", message, max(wrong))


def _refill(output: Any, leaves: list[Tensor]) -> Any:
    """The output's structure with its floating-point tensors replaced in order."""
    rest = iter(leaves)
    return map_tensors(lambda t: next(rest) if t.is_floating_point() else t, output)
