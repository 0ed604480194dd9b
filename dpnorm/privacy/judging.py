"""What a private training is refused for before it begins."""

from typing import Any, Literal

import torch
from opacus.grad_sample import GradSampleModuleExpandedWeights
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from dpnorm.detection import Report, check
from dpnorm.detection.inputs import (
    Inputs,
    batch_size,
    call,
    first_records,
    map_tensors,
    tensors_in,
)
from dpnorm.detection.loss_probes import Criterion
from dpnorm.detection.preserve import preserved
from dpnorm.errors import DpnormError, InputError, RefusedError
from dpnorm.norms import refresh_statistics, released_statistics
from dpnorm.privacy.admission import Allow, require_admitted
from dpnorm.privacy.rollback import has_hooks

SAMPLE = 4  # records on which a model is judged


def example_batch(loader: DataLoader) -> Any:
    """The first records of a data loader's data set, collated as the loader does.

    Raises:
        InputError: the data set has no length or holds no record.
    """
    require_records(loader)
    dataset: Any = loader.dataset
    records = [dataset[i] for i in range(min(SAMPLE, len(dataset)))]
    return (loader.collate_fn or torch.utils.data.default_collate)(records)


def require_records(loader: DataLoader) -> None:
    """Raises an InputError where no batches of records can be drawn from a data loader."""
    if not isinstance(loader, DataLoader):
        raise InputError(
            f"data_loader is a {type(loader).__name__}: pass a torch.utils.data.DataLoader"
        )
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise InputError(
            "the data set has no length, so that records cannot be drawn from it: take a map-style "
            "data set"
        )
    if not len(dataset):
        raise InputError("the data set holds no record: pass a data loader of at least one")
    if loader.batch_sampler is None:
        raise InputError(
            "the data loader does not make batches of records (batch_size=None): give it a "
            "batch_size and a data set of single records"
        )
    if not 1 <= len(loader) <= len(dataset):
        raise InputError(
            f"the data loader has {len(loader)} batches of {len(dataset)} records: it takes at "
            "least one batch, and a record a batch; choose another batch_size"
        )


def require_whole(loader: DataLoader) -> None:
    """Raises an InputError for a sampler that Poisson sampling would put aside.

    Raises:
        InputError: the data loader draws from a part of its data set, or not uniformly.
    """
    plain = (SequentialSampler, RandomSampler, DistributedSampler)
    batches = loader.batch_sampler
    sampler = getattr(batches, "sampler", batches)
    if type(batches) is not BatchSampler or type(sampler) not in plain:
        kind = type(sampler).__name__
        raise InputError(
            f"the data loader draws by a {kind}, which Poisson sampling would put aside: it draws "
            "each record of the data set alike. Make a torch.utils.data.Subset of the records that "
            "are to be trained on, or take poisson_sampling=False"
        )


def require_once(loader: DataLoader) -> None:
    """Raises an InputError where fixed batches may hold a record more than once.

    A step would then move by more than what is accounted.
    """
    sampler = getattr(loader.batch_sampler, "sampler", None)
    if getattr(sampler, "replacement", False):
        raise InputError(
            f"the data loader's {type(sampler).__name__} draws with replacement, so that a record "
            "may be in one batch several times: draw without, or take poisson_sampling=True"
        )
    indices = getattr(sampler, "indices", None)
    if isinstance(indices, (list, tuple, range, Tensor)):
        listed = [int(i) for i in indices]
        if len(set(listed)) < len(listed):
            raise InputError(
                f"the data loader's {type(sampler).__name__} lists records more than once: list "
                "each once"
            )


def require_finite(what: str, value: Any) -> None:
    """Raises an InputError for records with NaN or infinite numbers, on which nothing is judged."""
    if count := _not_finite(value):
        raise InputError(
            f"{what} hold {count} numbers that are NaN or infinite, and a model cannot be judged "
            "on them: pass sample_inputs= of sound records (in training such a record adds nothing)"
        )


def require_public(module: nn.Module, public: Inputs) -> None:
    """Sets statistics to those of public records, from which they are taken from now on.

    Raises:
        InputError: the public records are fewer than two, not finite, or not what the model takes.
    """
    try:
        batch_size(public, least=2)
        if wrong := _not_finite(public):
            raise InputError(f"{wrong} numbers are NaN or infinite: leave such records out")
        refresh_statistics(module, public)
    except DpnormError as error:
        raise InputError(f"public_inputs are not as needed: {error}") from error
    except Exception as error:
        raise InputError(
            "public_inputs are not as needed: the model raises "
            f"{type(error).__name__} on them: {' '.join(str(error).split())[:200]}"
        ) from error


def inputs_and_targets(batch: Any, module: nn.Module) -> tuple[Inputs, Any]:
    """Inputs, and targets where a batch holds them, on the module's device."""
    device = next(module.parameters()).device
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


def judged(
    module: nn.Module,
    inputs: Inputs,
    targets: Any,
    criterion: Criterion | None,
    loss_reduction: Literal["mean", "sum"],
    allow: Allow,
) -> Report:
    """The report of `check`, of a model that is admitted.

    Raises:
        RefusedError: the model is not proven, and not allowed.
    """
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


def require_trainable(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises an InputError where model and optimizer do not belong together.

    Raises:
        InputError: nothing is trainable, the model is in evaluation mode or on several devices, or
            the optimizer has other parameters than the trainable ones.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module is a {type(module).__name__}: pass a torch.nn.Module")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer is a {type(optimizer).__name__}: pass a torch.optim.Optimizer")
    if has_hooks(module):
        raise InputError(
            "the model is private already and has gradient hooks: pass the plain model, which "
            ".to_standard_module() or .cleanup() of what make_private returned frees of them"
        )
    trainable = {p: name for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise InputError("the model has no trainable parameter: there is nothing to train")
    if not module.training:
        raise InputError(
            "the module is in evaluation mode: call module.train() first, since it is judged "
            "in the modes in which it is trained"
        )
    devices = {str(t.device) for t in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        raise InputError(
            f"the model is on several devices ({', '.join(sorted(devices))}): move it to one with "
            "model.to(device)"
        )
    if "meta" in devices:
        raise InputError("the model is on the meta device and holds no numbers: materialize it")
    if isinstance(optimizer, DPOptimizer):
        raise InputError("the optimizer is private already: pass the one that it was made from")
    own = {p for group in optimizer.param_groups for p in group["params"]}
    if foreign := own - set(module.parameters()):
        raise InputError(
            f"the optimizer has {len(foreign)} parameters that are not the model's: build it over "
            "model.parameters() of the model that is trained"
        )
    if missing := [name for p, name in trainable.items() if p not in own]:
        raise InputError(
            f"the optimizer leaves out trainable parameters ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): add them, or freeze them with "
            "requires_grad_(False)"
        )


def require_expanded_weights(module: nn.Module, report: Report, inputs: Inputs) -> None:
    """Raises a RefusedError where torch's expanded weights cannot express the model.

    They clip rows, so that what folds rows or needs another engine is refused as well.
    """
    if released_statistics(module):
        raise RefusedError(
            "refused: mode 'ew' has no hook for the layers with private statistics: take "
            "grad_sample_mode='hooks'"
        )
    for found in report.findings:
        if found.code in ("DPN502", "DPN503", "DPN504", "DPN505"):
            raise RefusedError(
                f"refused: mode 'ew' has no gradient of one record in {found.path or 'the model'} "
                f"({found.code}): {found.message}. Take grad_sample_mode='hooks'"
            )
    with preserved(module), torch.enable_grad():
        wrapped = GradSampleModuleExpandedWeights(module)
        try:
            outputs = [t for t in tensors_in(call(wrapped, inputs)) if t.requires_grad]
            sum(t.sum() for t in outputs).backward()  # type: ignore[union-attr]
        except DpnormError:
            raise
        except Exception as error:
            raise RefusedError(
                "refused: torch's expanded weights cannot express the model: "
                f"{' '.join(str(error).split())}. Take grad_sample_mode='hooks'"
            ) from error
        finally:
            for parameter in module.parameters():
                for name in ("grad_sample", "_forward_counter"):
                    parameter.__dict__.pop(name, None)


def _not_finite(value: Any) -> int:
    """How many numbers are NaN or infinite."""
    return sum(int((~t.isfinite()).sum()) for t in tensors_in(value))
