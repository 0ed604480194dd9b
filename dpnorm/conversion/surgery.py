"""Replacing layers in a copy of a model."""

import copy
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from dpnorm.conversion.recipes import Groups, Init, Variant
from dpnorm.conversion.result import Change
from dpnorm.conversion.source import SourceNorm
from dpnorm.detection.families import is_batch_norm, is_uninitialized
from dpnorm.errors import ConversionError, InputError

Select = Callable[[str, nn.Module], bool] | Iterable[str] | None


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, or a clear error where the model cannot be copied."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ConversionError(
            "the model holds scripted modules, whose layers cannot be exchanged: convert the "
            "model before torch.jit.script or torch.jit.trace"
        )
    for path, module in model.named_modules():
        if is_uninitialized(module):
            raise ConversionError(
                f"{path or 'the model'} is a lazy layer that has seen no input: run the model "
                "once on a batch, then convert it"
            )
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ConversionError(
            f"the model cannot be copied ({type(error).__name__}: {error}): convert never changes "
            "the model it is given, so copy.deepcopy(model) must work"
        ) from error


def batch_norms(model: nn.Module, select: Select = None) -> list[tuple[str, nn.Module]]:
    """The BatchNorm-family layers by path, each under its first path only."""
    chosen = _selector(select)
    return [(p, m) for p, m in model.named_modules() if is_batch_norm(m) and chosen(p, m)]


def replace_layers(
    model: nn.Module, variant: Variant, *, init: Init, groups: Groups, select: Select
) -> tuple[nn.Module, tuple[Change, ...]]:
    """Replaces the selected BatchNorm layers of `model` in place; returns the model and changes.

    A layer that stands at several places is replaced once and stays shared. When the model is
    itself a BatchNorm, the new layer is returned.
    """
    recipe = variant.recipe
    if recipe is None:
        return model, ()
    flat = set(_behind_linear(model))
    new_layers: dict[int, nn.Module] = {}
    changes = []
    for path, layer in batch_norms(model, select):
        _require_plain_forward(path, layer)
        source = SourceNorm.read(layer, path, flat=path in flat)
        new, detail = recipe(source, init, groups)
        _keep_flags(new, source)
        new_layers[id(layer)] = _with_fused_activation(layer, new)
        changes.append(Change(path, str(layer), _one_line(new), detail))
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if id(layer) in new_layers:
            if not path:
                return new_layers[id(layer)], tuple(changes)
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new_layers[id(layer)])
    return model, tuple(changes)


def _selector(select: Select) -> Callable[[str, nn.Module], bool]:
    if select is None:
        return lambda path, module: True
    if callable(select):
        return select
    patterns = [select] if isinstance(select, str) else select
    if not isinstance(patterns, Iterable) or not all(isinstance(p, str) for p in patterns):
        raise InputError(
            f"select is {select!r}: pass path patterns such as 'layer1.*', or a function of "
            "(path, module)"
        )
    return lambda path, module: any(fnmatch.fnmatchcase(path, p) for p in patterns)


def _behind_linear(model: nn.Module) -> Iterator[str]:
    """Paths of BatchNorm1d layers that follow a linear layer of their width: records are flat."""
    before: nn.Module | None = None
    for path, module in model.named_modules():
        if (
            isinstance(module, nn.BatchNorm1d)
            and isinstance(before, nn.Linear)
            and before.out_features == module.num_features
        ):
            yield path
        if not list(module.children()):
            before = module


def _require_plain_forward(path: str, layer: nn.Module) -> None:
    """Refuses subclasses that compute something of their own."""
    known = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
    if type(layer).forward not in known and not _is_fused(layer):
        raise ConversionError(
            f"{path}: {type(layer).__module__}.{type(layer).__qualname__} has a forward of its "
            "own, which a conversion would lose: exchange this layer by hand, or leave it out "
            "with select="
        )


def _is_fused(layer: nn.Module) -> bool:
    """Whether this is timm's BatchNormAct2d: normalization, then `drop`, then `act`."""
    return (
        type(layer).__name__ == "BatchNormAct2d"
        and type(layer).__module__.startswith("timm.")
        and isinstance(getattr(layer, "drop", None), nn.Module)
        and isinstance(getattr(layer, "act", None), nn.Module)
    )


def _with_fused_activation(layer: Any, new: nn.Module) -> nn.Module:
    return nn.Sequential(new, layer.drop, layer.act) if _is_fused(layer) else new


def _keep_flags(new: nn.Module, source: SourceNorm) -> None:
    new.train(source.training)
    for name, parameter in new.named_parameters():
        trainable = source.bias_trainable if name.endswith("bias") else source.weight_trainable
        parameter.requires_grad_(trainable)


def _one_line(module: nn.Module) -> str:
    return " ".join(str(module).split())
