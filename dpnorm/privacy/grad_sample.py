"""Opacus's gradient-sampling modules with one gradient a record instead of one a row.

Output gradients come from tensor hooks, so that in-place operations in the model do no harm.
Modules without a sampler are run again record by record, with their buffers as constants; rows that
a module folds into the batch are put together before anything is clipped.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleHooksFastGradientClipping,
    GradSampleModuleFastGradientClipping,
)
from torch import Tensor, nn

from dpnorm.detection.preserve import is_judging
from dpnorm.errors import InputError, RefusedError, unknown_name
from dpnorm.gradients import Rows
from dpnorm.gradients.factors import Samples, added, row_norms
from dpnorm.gradients.hearing import hear
from dpnorm.gradients.lean import lean_layer, lean_pool
from dpnorm.gradients.memory import Workspace
from dpnorm.privacy.ghost import linear_norms
from dpnorm.privacy.judged import Judged
from dpnorm.privacy.lean_forward import LeanForward, PoolForward
from dpnorm.privacy.statistics import StatisticsRelease
from dpnorm.privacy.units import Arguments, Unit, tensors_of, units

_PASSES = 4  # how many forward passes are remembered until one of them is run backward


@dataclass
class Pass:
    """One forward pass of the model.

    Attributes:
        records: of how many.
        parameters: that are trained.
        over: whether its backward pass is.
        uses: how often each parameter's module ran (ghost clipping).
        said: what the records said of each layer with private statistics, call by call.
        outputs: of the model, where the backward pass begins there (ghost clipping).
        doubtful: tells of some units, by their path, whether the gradient of an output was lost.
    """

    records: int
    parameters: Sequence[nn.Parameter]
    over: bool = False
    uses: Counter[nn.Parameter] = field(default_factory=Counter)
    said: dict[int, list[Tensor]] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    doubtful: list[tuple[str, Callable[[], bool]]] = field(default_factory=list)


NOT_FINITE = (
    "a record of the batch has a gradient or statistics that are not finite, and ghost clipping "
    "cannot leave it out: look for NaN or infinite values in the data, or take "
    "grad_sample_mode='hooks', which does"
)


class _OneGradientARecord(GradSampleHooks):
    """What both of Opacus's hook classes get in place of their own hooks."""

    def __init__(
        self,
        m: nn.Module,
        *,
        rows: Mapping[str, Rows],
        own: bool = False,
        lean: bool = False,
        statistics: StatisticsRelease | None = None,
        **options: Any,
    ) -> None:
        object.__setattr__(self, "_rows", dict(rows))  # asked for while nn.Module is not set up
        object.__setattr__(self, "_lean", lean)
        object.__setattr__(self, "_own", own)  # whether it listens while a model is judged
        object.__setattr__(self, "_statistics", statistics)
        super().__init__(m, **options)

    @classmethod
    def validate(cls, module: nn.Module, *, strict: bool = False) -> list[NotImplementedError]:
        """Buffers are constants here, and what writes them is refused by `check`."""
        return []

    def add_hooks(
        self,
        *,
        loss_reduction: str = "mean",
        batch_first: bool = True,
        force_functorch: bool = False,
    ) -> None:
        """Adds hooks: arguments in the forward pass, output gradients by tensor hooks."""
        if hasattr(self._module, "autograd_grad_sample_hooks"):
            raise InputError("the model has per-sample gradient hooks already: remove them first")
        if not batch_first:
            raise InputError("batch_first=False is not supported: put the batch first")
        self.autograd_grad_sample_hooks: list[Any] = []
        self._module.autograd_grad_sample_hooks = self.autograd_grad_sample_hooks
        self._scaled_by_records = loss_reduction == "mean"
        self._running: Pass | None = None  # the forward pass that is under way
        self._ending: Pass | None = None  # the one whose backward pass is under way
        self._recomputing = False
        self._memory = Workspace()
        self._watch_passes()
        for unit in units(self._module, self._rows):
            self._watch(replace(unit, functional=unit.functional or force_functorch))
        if self._lean:
            pools = [lean_pool(module) for module in self._module.modules()]
            self.autograd_grad_sample_hooks += [PoolForward(p, self) for p in pools if p]
        self._watch_statistics()
        self._end_handle()  # after the hooks of a model that is a unit itself
        self.enable_hooks()

    def _watch_passes(self) -> None:
        judged = Judged(self._module)
        self._passes: list[Pass] = []

        def start(module: nn.Module, args: Any, kwargs: Any) -> None:
            if module is not self._module or not self.listens():
                return
            judged.require_unchanged()
            tensors = tensors_of((args, kwargs))
            self._running = Pass(len(tensors[0]) if tensors else 0, judged.trainable)
            if self._ending is not None:  # the last backward pass raised before its end
                self._ending = None
                for parameter in self._trainable():
                    for name in ("_current_grad_sample", "_current_norm"):
                        parameter.__dict__.pop(name, None)

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if module is not self._module or self._recomputing:
                return
            if self._clips_backward and self._running is not None:
                self._running.outputs = [t for t in tensors_of(output) if t.requires_grad]
                self._passes = [*self._passes, self._running][-_PASSES:]
            self._running = None

        handles = self.autograd_grad_sample_hooks
        handles.append(self._module.register_forward_pre_hook(start, with_kwargs=True))
        self._end_handle = lambda: handles.append(
            self._module.register_forward_hook(end, always_call=True)
        )

    def _watch(self, unit: Unit) -> None:
        handles = self.autograd_grad_sample_hooks
        layer = (
            lean_layer(unit.module, self._memory) if self._lean and not unit.functional else None
        )
        if layer is not None:
            handles.append(LeanForward(unit, layer, self))
            return
        waiting: list[Arguments] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            if module is unit.module and self.listens():
                waiting.append(Arguments.kept(unit, args, kwargs))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module is unit.module and self.listens() and waiting:
                self.heard(unit, waiting.pop(), output)

        handles.append(unit.module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(unit.module.register_forward_hook(after, with_kwargs=True))

    def heard(self, unit: Unit, given: Arguments, output: Any) -> None:
        """A unit ran: the gradient of its output will yield those of the records."""
        tensors = tensors_of(output)
        outputs = [
            (index, out)
            for index, out in enumerate(tensors)
            if out.requires_grad and not any(out is o for o in tensors[:index])
        ]
        if not outputs:
            return
        running = self.ran(unit)
        for index, out in outputs:
            lost = hear(unit.module, out, partial(self._arrived, unit, given, running, index))
            if lost is not None:
                running.doubtful.append((unit.path, lost))

    def ran(self, unit: Unit) -> Pass:
        """A unit has run in the present forward pass, which is returned."""
        running = self._running
        if running is None:
            raise RefusedError(
                f"refused: {unit.path or 'the model'} ran outside of a forward pass of the "
                "model, so that the number of records is not known: call the model itself"
            )
        if self._clips_backward:
            running.uses.update(p for p in unit.module.parameters() if p.requires_grad)
        return running

    def _watch_statistics(self) -> None:
        if self._statistics is None:
            return

        def listen(place: int, module: nn.Module, args: Any, output: Tensor) -> None:
            # not while a module runs again record by record: once a record is enough
            if self.listens() and self._running is not None:
                said = self._statistics.said_at(place, output, self._running.records)
                self._running.said.setdefault(place, []).append(said)

        for place, (layer, _) in enumerate(self._statistics.layers):
            handle = layer.register_forward_hook(partial(listen, place))
            self.autograd_grad_sample_hooks.append(handle)

    def listens(self) -> bool:
        """Whether the gradients of the records are wanted now."""
        active = self.hooks_enabled and self._module.training and not self._recomputing
        return bool(active and torch.is_grad_enabled() and not (is_judging() and not self._own))

    def _arrived(
        self, unit: Unit, given: Arguments, own: Pass, output: int, gradient: Tensor
    ) -> None:
        """An output's gradient is there: each record's part of it goes to the parameters."""
        scale = self.begin(unit, own, gradient)
        if scale is None:
            return
        self._recomputing = True
        try:
            self._sample(unit, given, own, output, gradient.detach() * scale)
        finally:
            self._recomputing = False

    def begin(self, unit: Unit, own: Pass, slope: Tensor) -> float | None:
        """The backward pass has come to a unit's output.

        Returns:
            By what the records' gradients are to be multiplied; None where they are not wanted.

        Raises:
            RefusedError: records would be counted twice, or have other rows than when judged.
        """
        if not self.hooks_enabled:
            return None
        if own.over:
            raise RefusedError(
                "refused: a second backward pass through one forward pass would count each record "
                "twice: add the losses, and call backward once"
            )
        if self._ending is None:
            self._ending = own
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)
        if self._ending is not own:
            raise RefusedError(
                "refused: one backward pass goes through two forward passes of the model, whose "
                "rows may be of different records: call the model once a step"
            )
        unit.require_rows(slope, own.records)
        return own.records if self._scaled_by_records else 1

    def records(self, own: Pass) -> int:
        """Of how many records a forward pass was."""
        return own.records

    def _sample(
        self, unit: Unit, given: Arguments, own: Pass, output: int, gradient: Tensor
    ) -> None:
        for parameter, found in unit.gradients(given, gradient, own.records, output).items():
            self.take(parameter, found)

    def take(self, parameter: nn.Parameter, samples: Samples) -> None:
        """The records' gradients of one parameter; of several calls they add up."""
        before = parameter.__dict__.get("_current_grad_sample")
        parameter._current_grad_sample = added(before, samples)  # type: ignore[attr-defined]

    def _end_backward(self) -> None:
        """Once a backward pass is over, what every parameter got is one batch's gradients."""
        assert self._ending is not None
        ended = self._ending
        records, ended.over = ended.records, True
        for path, is_lost in ended.doubtful:
            if is_lost():  # the next forward pass clears what the others have got
                raise RefusedError(
                    f"refused: what {path or 'the model'} gave was written in place afterwards "
                    "(DPN501), so that its gradient of a record is lost: replace the in-place "
                    "operation"
                )
        self._ending = None
        if self._statistics is not None:
            others = any(getattr(p, "grad_sample", None) is not None for p in ended.parameters)
            self._statistics.offer(self._statistics.vectors(ended.said, records), beside=others)
        for parameter in ended.parameters:
            own = parameter.__dict__.pop("_current_grad_sample", None)
            self._finish(parameter, own, records)

    def _finish(self, parameter: nn.Parameter, own: Samples | None, records: int) -> None:
        if own is None:  # no record moved it
            own = parameter.new_zeros((records, *parameter.shape))
        before = parameter.grad_sample  # type: ignore[attr-defined]
        if before is None:
            parameter.grad_sample = own  # type: ignore[attr-defined]
            return
        if not self.grad_accumulation_allowed:
            raise InputError(
                "a second backward pass came before optimizer.step(): under Poisson sampling each "
                "batch is one step (or take opacus's BatchMemoryManager)"
            )
        listed = before if isinstance(before, list) else [before]
        parameter.grad_sample = [*listed, own]  # type: ignore[attr-defined]

    _clips_backward = False  # under ghost clipping the last of two batches replaces the other

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self._module.parameters() if p.requires_grad]


class _OneNormARecord(_OneGradientARecord, GradSampleHooksFastGradientClipping):
    """Ghost clipping: the norm of a record's gradient, without the gradient where it can be."""

    _clips_backward = True

    @contextlib.contextmanager
    def _unheard(self) -> Iterator[None]:
        """A backward pass that no hook is to see."""
        self.disable_hooks()
        try:
            yield
        finally:
            self.enable_hooks()

    def clipped_gradients(self, loss: Tensor) -> dict[nn.Parameter, Tensor]:
        """The sum of the records' clipped gradients, for each trainable parameter.

        Args:
            loss: the sum of the losses of the records.

        Raises:
            RefusedError: the loss is not one of a single forward pass in training mode, or the
                model's output has other rows than one a record.
            InputError: a record's gradient is not finite.
        """
        waiting = [run for run in self._passes if not run.over]
        outputs = [(run, out) for run in waiting for out in run.outputs]
        found: Sequence[Tensor | None] = ()
        if outputs and loss.requires_grad:
            with self._unheard():
                found = torch.autograd.grad(
                    loss, [out for _, out in outputs], allow_unused=True, retain_graph=True
                )
        reached = [
            (run, o, g) for (run, o), g in zip(outputs, found, strict=False) if g is not None
        ]
        if len({id(run) for run, _, _ in reached}) != 1:
            raise RefusedError(
                "refused: under ghost clipping a loss is of the outputs of one forward pass of the "
                f"model in training mode; this one is of {len({id(r) for r, _, _ in reached})}"
            )
        own = reached[0][0]
        if any(len(out) != own.records for _, out, _ in reached):
            raise RefusedError(
                f"refused: the model's output has other rows than one for each of {own.records} "
                "records, so that ghost clipping cannot scale them: take grad_sample_mode='hooks'"
            )
        outs, rows = [out for _, out, _ in reached], [g for _, _, g in reached]
        parameters = self._trainable()
        scale = max(own.records, 1) if self._scaled_by_records else 1
        torch.autograd.grad(
            outs, parameters, [g / scale for g in rows], allow_unused=True, retain_graph=True
        )
        if not own.over:
            raise RefusedError("refused: no module of the model saw the backward pass")
        norms = self.get_norm_sample()
        if not bool(norms.isfinite().all()):
            raise InputError(NOT_FINITE)
        factors = self.get_clipping_coef()
        scaled = [g * factors.to(g).view(-1, *[1] * (g.dim() - 1)) for g in rows]
        with self._unheard():
            clipped = torch.autograd.grad(outs, parameters, scaled, allow_unused=True)
        own.outputs = []
        self._passes = [run for run in self._passes if not run.over]
        return {
            p: torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters, clipped, strict=True)
        }

    def _sample(
        self, unit: Unit, given: Arguments, own: Pass, output: int, gradient: Tensor
    ) -> None:
        if not (self._is_plain_linear(unit, own) and own.records):
            super()._sample(unit, given, own, output, gradient)
            return
        (x,), _ = given.unchanged(unit.path)
        x = unit.rows.grouped(x, own.records).flatten(1, -2)
        gradient = unit.rows.grouped(gradient, own.records).flatten(1, -2)
        for parameter, norm in linear_norms(cast(nn.Linear, unit.module), x, gradient).items():
            parameter._current_norm = norm  # type: ignore[attr-defined]

    def _is_plain_linear(self, unit: Unit, own: Pass) -> bool:
        """Whether a linear layer was used once, so that its norm needs no gradient."""
        once = all(own.uses[p] == 1 for p in unit.module.parameters() if p.requires_grad)
        plain = type(unit.module) is nn.Linear and not unit.functional
        return self.use_ghost_clipping and plain and once

    def _finish(self, parameter: nn.Parameter, own: Samples | None, records: int) -> None:
        norm = parameter.__dict__.pop("_current_norm", None)
        if norm is None:
            norm = parameter.new_zeros(records)
            norm = norm if own is None else row_norms(own)
        parameter._norm_sample = norm  # type: ignore[attr-defined]


class RecordGradSampleHooks(_OneGradientARecord):
    """Opacus's GradSampleHooks with one gradient a record; see `hooks_for`."""


class RecordGradSampleModule(_OneGradientARecord, GradSampleModule):
    """Opacus's GradSampleModule with one gradient a record; see `hooks_for`."""


class RecordGhostHooks(_OneNormARecord):
    """Opacus's ghost-clipping hooks with one norm a record; see `hooks_for`."""


class RecordGhostModule(_OneNormARecord, GradSampleModuleFastGradientClipping):
    """Opacus's ghost-clipping module with one norm a record; see `hooks_for`."""


_CLASSES: dict[tuple[str, bool], type[_OneGradientARecord]] = {
    ("hooks", True): RecordGradSampleModule,
    ("functorch", True): RecordGradSampleModule,
    ("lean", True): RecordGradSampleModule,
    ("ghost", True): RecordGhostModule,
    ("hooks", False): RecordGradSampleHooks,
    ("functorch", False): RecordGradSampleHooks,
    ("lean", False): RecordGradSampleHooks,
    ("ghost", False): RecordGhostHooks,
}
MODES = ("hooks", "functorch", "ghost", "lean")


def hooks_for(
    model: nn.Module,
    rows: Mapping[str, Rows],
    *,
    mode: str = "hooks",
    wrap_model: bool = True,
    loss_reduction: str = "mean",
    **options: Any,
) -> Any:
    """The model with one gradient a record in `grad_sample` of every trainable parameter.

    Args:
        model: that `check` has judged, in training mode.
        rows: of the report (`Report.rows`).
        mode: "hooks" takes Opacus's samplers where there are some, "functorch" none, "ghost" only
            norms, for Opacus's ghost clipping; "lean" runs the layers that it knows without the
            gradient of the batch (`dpnorm.gradients.lean`), and the others by hooks.
        wrap_model: return a module around the model; else an object that holds the hooks.
        loss_reduction: "mean" or "sum", that of the loss.
        options: `statistics` of layers with private ones, and those of Opacus's class, such as
            max_grad_norm in mode "ghost".

    Raises:
        InputError: an unknown mode.
        RefusedError: a parameter has no gradient of one record.
    """
    if mode not in MODES:
        raise unknown_name("grad_sample_mode", mode, MODES)
    if mode == "functorch":
        options["force_functorch"] = True
    options["lean"] = mode == "lean"
    return _CLASSES[mode, wrap_model](model, rows=rows, loss_reduction=loss_reduction, **options)
