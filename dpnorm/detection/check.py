"""check: does each record's contribution to the training step belong to that record alone?"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpnorm.detection.families import is_batch_norm, is_uninitialized, uses_batch_statistics
from dpnorm.detection.inputs import Inputs, batch_size, check_device, map_tensors, tensors_in
from dpnorm.detection.preserve import SavedState, preserved
from dpnorm.detection.report import Finding, LayerVerdict, Report, Verdict, finding
from dpnorm.detection.swap import Trace, movement, replay, run, swap_others
from dpnorm.errors import DpnormError, InputError, unknown_name

# Below this a row's movement may be rounding: exchanging the other records can change the order
# of a sum. Coupling found by exchanging them for records ten times as large shows far more.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE_ROUNDING = 5e-2  # bfloat16 and half

Criterion = Callable[[Any, Any], Tensor]


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

    The swap probe runs the model with one record kept and all others exchanged, and compares what
    belongs to the kept record: at every module, at the output, in the buffers and, with a
    criterion, in the gradient of the loss with respect to the output. What moves is coupled, and
    the size of the movement is the witness. Nothing that moved is not a proof: without a finding
    the verdict is "unproven".

    The model comes back as it was: modes, buffers, gradients and random state, also after an
    exception.

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
    found: dict[tuple[str, str], Finding] = {}
    with preserved(model) as state, torch.no_grad():
        for keep in sorted({0, batch - 1}):
            swapped_inputs = swap_others(inputs, keep, seed)
            base = _run(model, inputs, state, seed)
            swapped = _run(model, swapped_inputs, state, seed)
            for item in (
                *_batch_norms(base, state, batch, keep, seed),
                *_coupled_modules(base, swapped, batch, keep),
                *_written_buffers(model, base, swapped),
                *_coupled_loss(base, targets, criterion, batch, keep, seed),
            ):
                found.setdefault((item.path, item.code), item)
    for item in _fragile(model):
        found.setdefault((item.path, item.code), item)
    order = {path: i for i, (path, _) in enumerate(model.named_modules())}
    findings = tuple(sorted(found.values(), key=lambda f: (order[f.path], f.code)))
    refuted = any(f.witness is not None for f in findings)
    return Report(
        verdict=Verdict.REFUTED if refuted else Verdict.UNPROVEN,
        findings=findings,
        layers=_layers(model, findings),
        opacus=_opacus(model, refuted=refuted),
        model=type(model).__name__,
        loss="not judged" if criterion is None else f"judged as a {loss_reduction}",
        seed=seed,
    )


def _run(model: nn.Module, inputs: Inputs, state: SavedState, seed: int) -> Trace:
    try:
        return run(model, inputs, state, seed)
    except DpnormError:
        raise
    except Exception as error:
        shapes = [tuple(t.shape) for t in tensors_in(inputs)]
        reason = " ".join(str(error).split())
        raise InputError(
            f"the model raised {type(error).__name__} on inputs of shape {shapes}: {reason}"
        ) from error


def _require_initialized(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if is_uninitialized(module):
            raise InputError(
                f"{path or 'the model'} is a lazy layer that has seen no input: run the model "
                "once on a batch, then check it"
            )


def _threshold(tensors: list[Tensor]) -> float:
    kinds = [ROUNDING.get(t.dtype, COARSE_ROUNDING) for t in tensors if t.is_floating_point()]
    return max(kinds, default=0.0)


def _batch_norms(base: Trace, state: SavedState, batch: int, keep: int, seed: int) -> list[Finding]:
    """Every BatchNorm-family layer that uses its batch, run alone on its own input."""
    findings = []
    for path, module, given, _ in base.calls:
        if uses_batch_statistics(module) and given and len(given[0]) == batch:
            moved = replay(module, given[0], state, keep, seed)
            if moved > _threshold(given):
                message = (
                    "normalizes with the statistics of the batch: exchanging the other records "
                    f"moves a record's output by {moved:.3g} of its size"
                )
                findings.append(
                    finding("DPN101", path, module, source_location(module), message, moved)
                )
    return findings


def _coupled_modules(base: Trace, swapped: Trace, batch: int, keep: int) -> list[Finding]:
    """Modules whose output row moved although their input row did not, innermost only."""
    findings: list[Finding] = []
    for before, after in zip(base.calls, swapped.calls, strict=False):
        path, module, given, made = before
        if path != after[0] or is_batch_norm(module):
            continue
        limit = _threshold(made)
        if movement(given, after[2], keep, batch) > 0:
            continue
        moved = movement(made, after[3], keep, batch)
        inside = f"{path}." if path else ""
        explained = any(f.path.startswith(inside) for f in findings) or any(
            p.startswith(inside) and uses_batch_statistics(m) for p, m, _, _ in base.calls
        )
        if moved > limit and not explained:
            message = (
                f"exchanging the other records moves a record's output by {moved:.3g} of its size"
            )
            findings.append(
                finding("DPN102", path, module, source_location(module), message, moved)
            )
    return findings


def _written_buffers(model: nn.Module, base: Trace, swapped: Trace) -> list[Finding]:
    """Buffers whose content after a forward pass depends on the records."""
    paths = {module: path for path, module in model.named_modules()}
    findings = []
    for (module, name), content in base.buffers.items():
        other = swapped.buffers.get((module, name))
        if other is None or uses_batch_statistics(module) or torch.equal(content, other):
            continue
        moved = movement([content.reshape(1, -1)], [other.reshape(1, -1)], 0, 1)
        message = f"writes its buffer {name!r} from the records in the forward pass"
        findings.append(
            finding("DPN201", paths[module], module, source_location(module), message, moved)
        )
    return findings


def _coupled_loss(
    base: Trace,
    targets: Any,
    criterion: Criterion | None,
    batch: int,
    keep: int,
    seed: int,
) -> list[Finding]:
    """Whether a record's output gradient depends on the outputs and targets of the others."""
    if criterion is None:
        return []
    outputs = [t for t in tensors_in(base.output) if t.is_floating_point()]
    others = swap_others((*outputs, targets), keep, seed)
    assert isinstance(others, tuple)
    gradients = []
    for values, wanted in ((outputs, targets), (list(others[:-1]), others[-1])):
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            loss = criterion(_refill(base.output, leaves), wanted)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise InputError("the criterion must return a scalar loss tensor")
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
        gradients.append([g for g in found if g is not None])
    moved = movement(gradients[0], gradients[1], keep, batch)
    if moved <= _threshold(outputs):
        return []
    message = (
        "exchanging the other records' outputs and targets moves the gradient of a record's "
        f"output by {moved:.3g} of its size"
    )
    return [finding("DPN301", "", criterion, "", message, moved)]


def _refill(output: Any, leaves: list[Tensor]) -> Any:
    """The output's structure with its floating-point tensors replaced in order."""
    rest = iter(leaves)
    return map_tensors(lambda t: next(rest) if t.is_floating_point() else t, output)


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


def source_location(module: nn.Module) -> str:
    """File and line of a module's forward, as "file.py:41", or "" where there is no source."""
    try:
        _, line = inspect.getsourcelines(type(module).forward)
        file = inspect.getsourcefile(type(module).forward)
    except (OSError, TypeError):
        return ""
    return f"{Path(file).name}:{line}" if file else ""


def _layers(model: nn.Module, findings: tuple[Finding, ...]) -> tuple[LayerVerdict, ...]:
    verdicts = []
    for path, module in model.named_modules():
        codes = tuple(f.code for f in findings if f.path == path)
        if list(module.children()) and not codes:
            continue
        guilty = any(f.path == path and f.witness is not None for f in findings)
        verdict = Verdict.REFUTED if guilty else Verdict.UNPROVEN
        verdicts.append(LayerVerdict(path, type(module).__name__, verdict, codes))
    return tuple(verdicts)


def _opacus(model: nn.Module, *, refuted: bool) -> Literal["ready", "dpnorm", "no"]:
    """Whether Opacus's own validators take the model, and nothing refutes it."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    refused = ModuleValidator.validate(model) or GradSampleModule.validate(model, strict=False)
    return "no" if refuted or refused else "ready"
