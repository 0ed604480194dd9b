"""A drop-in for opacus.PrivacyEngine that trains what `check` proves, and only that."""

from typing import Any, Literal

import opacus
import torch
from opacus.grad_sample import GradSampleModuleExpandedWeights
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from dpnorm.detection import Report, check
from dpnorm.detection.inputs import Inputs, first_records, map_tensors
from dpnorm.detection.loss_probes import Criterion
from dpnorm.errors import InputError, RefusedError, unknown_name
from dpnorm.privacy.accounting import ACCOUNTANTS, epsilon_of, noise_for
from dpnorm.privacy.admission import Allow, require_admitted
from dpnorm.privacy.consistency import require_consistent
from dpnorm.privacy.grad_sample import MODES, hooks_for
from dpnorm.privacy.record_loss import RecordLoss
from dpnorm.privacy.statement import PrivacyStatement

CLIPPINGS = ("flat", "per_layer")  # "adaptive" divides by the number of records, unnoised
FIXED = "fixed batches, each accounted as a full one that a record moves by twice the clipping norm"
SAMPLE = 4  # records on which a model is judged


class PrivacyEngine(opacus.PrivacyEngine):
    """Makes a model, an optimizer and a data loader private, as Opacus's engine does.

    What differs: the model is judged by `check` and refused unless it is proven; output gradients
    are captured by tensor hooks, so that in-place operations do no harm; rows that a module folds
    into the batch (windows, time steps) are put together to one gradient a record before anything
    is clipped; constant buffers may stand beside parameters; fixed batches (poisson_sampling=False)
    are accounted without amplification by sampling, and for twice the sensitivity, since a record
    more or less moves others to other batches.

    Formal guarantee: (epsilon, delta) of `get_epsilon` for adding or removing one record, for the
    weights after the steps that were taken, if the model was proven and with its loss
    (`criterion`). `statement` says what was.

    Args:
        accountant: "prv" or "rdp". Opacus's "gdp" is refused: it is no upper bound.
        secure_mode: as in Opacus.
    """

    def __init__(self, *, accountant: str = "prv", secure_mode: bool = False) -> None:
        if accountant not in ACCOUNTANTS:
            raise unknown_name("accountant", accountant, ACCOUNTANTS)
        super().__init__(accountant=accountant, secure_mode=secure_mode)
        self._report: Report | None = None
        self._facts: dict[str, Any] = {}
        self._delta: float | None = None

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader,
        noise_multiplier: float,
        max_grad_norm: float | list[float],
        criterion: Criterion | None = None,
        sample_inputs: Inputs | None = None,
        allow: Allow = None,
        loss_reduction: Literal["mean", "sum"] = "mean",
        grad_sample_mode: str = "hooks",
        poisson_sampling: bool = True,
        **options: Any,
    ) -> Any:
        """Judges the model, and returns what Opacus's `make_private` returns.

        Args:
            module: in training mode, as it will be trained.
            optimizer: over the module's parameters.
            data_loader: of the private records.
            noise_multiplier: standard deviation of the noise in units of the clipping norm.
            max_grad_norm: the clipping norm.
            criterion: (output, targets) -> scalar loss. Without it the loss is not judged, and the
                statement says so; mode "ghost" then takes cross entropy.
            sample_inputs: records (B, ...) to judge the model on; default the first ones of the
                data loader, whose batches are then taken for (inputs, targets).
            allow: "unproven" or "refuted" trains what check does not prove.
            loss_reduction: "mean" or "sum", that of the loss.
            grad_sample_mode: "hooks", "functorch", "ghost", or "ew" for Opacus's own.
            poisson_sampling: False leaves the batches as they are.
            options: what else Opacus takes.

        Raises:
            InputError: a module in evaluation mode, or no records to judge it on.
            RefusedError: check does not prove the model, or a parameter has no gradient a record.
        """
        if grad_sample_mode not in (*MODES, "ew"):
            raise unknown_name("grad_sample_mode", grad_sample_mode, (*MODES, "ew"))
        if not module.training:
            raise InputError(
                "the module is in evaluation mode: call module.train() first, since it is judged "
                "in the modes in which it is trained"
            )
        if options.get("clipping", "flat") not in CLIPPINGS:
            raise unknown_name("clipping", options["clipping"], CLIPPINGS)
        if len(self.accountant):
            raise InputError(
                "this engine has booked steps of another training: take a new engine for each, so "
                "that each statement says what holds for its own"
            )
        inputs, targets = _sample(module, data_loader, sample_inputs)
        self._report = _judged(module, inputs, targets, criterion, loss_reduction, allow)
        if grad_sample_mode != "ew":
            require_consistent(
                module,
                self._report.rows,
                inputs,
                exact=grad_sample_mode == "ghost",
                force_functorch=grad_sample_mode == "functorch",
            )
        made = super().make_private(
            module=module,
            optimizer=optimizer,
            criterion=_for_mode(criterion, grad_sample_mode, loss_reduction),
            data_loader=data_loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            loss_reduction=loss_reduction,
            grad_sample_mode=grad_sample_mode,
            poisson_sampling=poisson_sampling,
            **options,
        )
        self._book(made[1], 1 / len(data_loader), poisson=poisson_sampling)
        self._facts = {"clip": max_grad_norm, "poisson": poisson_sampling, "allow": allow}
        self._facts["seeded"] = options.get("noise_generator") is not None
        return made

    def make_private_with_epsilon(
        self,
        *,
        data_loader: DataLoader,
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        poisson_sampling: bool = True,
        **options: Any,
    ) -> Any:
        """`make_private` with the noise that reaches an epsilon after so many epochs.

        Args:
            data_loader: of the private records.
            target_epsilon: the budget.
            target_delta: the probability with which the guarantee may fail.
            epochs: passes over the data loader.
            poisson_sampling: as in `make_private`.
            options: of `make_private`.

        Raises:
            InputError: the budget cannot be reached, or is spent in part already.
        """
        if len(self.accountant):
            raise InputError(
                "this engine has spent privacy already, which the noise for a target epsilon would "
                "not count: take a new engine, or make_private with a noise multiplier"
            )
        self._delta = target_delta
        noise = noise_for(
            epsilon=target_epsilon,
            sampling_rate=1 / len(data_loader) if poisson_sampling else 1.0,
            steps=epochs * len(data_loader),
            delta=target_delta,
            accountant=self.accountant.mechanism(),
        ) * (1 if poisson_sampling else 2)
        return self.make_private(
            data_loader=data_loader,
            noise_multiplier=noise,
            poisson_sampling=poisson_sampling,
            **options,
        )

    def get_epsilon(self, delta: float) -> float:
        """An upper bound on the epsilon that was spent so far, at `delta`."""
        return epsilon_of(
            self.accountant.history, delta=delta, accountant=self.accountant.mechanism()
        )

    def statement(self, delta: float | None = None) -> PrivacyStatement:
        """What the steps that were taken guarantee, in full.

        Args:
            delta: default the target delta of `make_private_with_epsilon`.

        Raises:
            InputError: nothing was made private yet, or no delta is known.
        """
        delta = self._delta if delta is None else delta
        if self._report is None or delta is None:
            missing = "no model was made private yet" if delta is not None else "delta is not known"
            raise InputError(f"{missing}: call make_private first, and statement(delta=1e-5)")
        history = self.accountant.history
        mode = "Poisson: each record independently in each batch"
        return PrivacyStatement(
            epsilon=self.get_epsilon(delta),
            delta=delta,
            noise_multiplier=min((noise for noise, _, _ in history), default=0.0),
            clip=self._facts["clip"],
            sampling_rate=max((rate for _, rate, _ in history), default=0.0),
            steps=sum(steps for _, _, steps in history),
            accountant=f"{self.accountant.mechanism()} (opacus)",
            randomness=(
                "noise from the generator that was passed: no guarantee to whoever knows its seed"
                if self._facts["seeded"]
                else "torch's generators (Mersenne Twister)"
            ),
            isolation=f"{self._report.summary()}; loss {self._report.loss}",
            sampling=mode if self._facts["poisson"] else FIXED,
        )

    def _book(self, optimizer: Any, rate: float, *, poisson: bool) -> None:
        """Accounts every step; hooks that are attached later come on top.

        Without Poisson sampling a record that is added or removed moves others to other batches:
        a step may then move by twice the clipping norm, and no sampling hides it.
        """

        def book(optimizer: Any) -> None:
            batches = optimizer.accumulated_iterations
            self.accountant.step(
                noise_multiplier=optimizer.noise_multiplier / (1 if poisson else 2),
                sample_rate=min(1.0, rate * batches) if poisson else 1.0,
            )

        def attach(function: Any) -> None:
            def both(optimizer: Any) -> None:
                book(optimizer)
                function(optimizer)

            optimizer.step_hook = both

        optimizer.step_hook = book
        optimizer.attach_step_hook = attach

    def _prepare_model(self, module: nn.Module, **options: Any) -> Any:
        mode = options.pop("grad_sample_mode", "hooks")
        assert self._report is not None
        if mode == "ew":
            _require_plain_rows(self._report)
            options.pop("max_grad_norm", None)
            options.pop("wrap_model", None)
            return GradSampleModuleExpandedWeights(module, **options)
        if mode != "ghost":
            options.pop("max_grad_norm", None)
        return hooks_for(module, self._report.rows, mode=mode, **options)


def _for_mode(
    criterion: Criterion | None, mode: str, loss_reduction: Literal["mean", "sum"]
) -> Any:
    if mode != "ghost":
        return criterion or nn.CrossEntropyLoss(reduction=loss_reduction)
    return RecordLoss(criterion or nn.CrossEntropyLoss(reduction=loss_reduction), loss_reduction)


def _sample(
    module: nn.Module, data_loader: DataLoader, sample_inputs: Inputs | None
) -> tuple[Inputs, Any]:
    """Inputs, and targets where the data loader gives them, on the module's device."""
    if sample_inputs is not None:
        return sample_inputs, None
    dataset = data_loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise InputError("the data set has no length: pass sample_inputs= with a few records")
    records = [dataset[i] for i in range(min(SAMPLE, len(dataset)))]
    batch = (data_loader.collate_fn or torch.utils.data.default_collate)(records)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    batch = map_tensors(lambda t: t.to(device), batch)
    if isinstance(batch, (Tensor, dict)):
        return batch, None
    if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
        inputs = tuple(batch[:-1]) if len(batch) > 1 else (batch[0],)
        return inputs, batch[-1] if len(batch) > 1 else None
    raise InputError(
        f"a batch of the data loader is a {type(batch).__name__}: pass sample_inputs= with what "
        "the model takes"
    )


def _judged(
    module: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    loss_reduction: Literal["mean", "sum"],
    allow: Allow,
) -> Report:
    if criterion is not None and targets is None:
        criterion = None  # nothing to judge it on: the statement says that it was not
    report = check(
        module,
        first_records(inputs, SAMPLE),
        targets=targets if criterion is not None else None,
        criterion=criterion,
        loss_reduction=loss_reduction,
    )
    require_admitted(report, allow)
    return report


def _require_plain_rows(report: Report) -> None:
    """Opacus's expanded weights clip rows; what folds them or needs another engine is refused."""
    for found in report.findings:
        if found.code in ("DPN502", "DPN503", "DPN504", "DPN505"):
            raise RefusedError(
                f"refused: mode 'ew' has no gradient of one record in {found.path or 'the model'} "
                f"({found.code}): {found.message}. Take grad_sample_mode='hooks'"
            )
