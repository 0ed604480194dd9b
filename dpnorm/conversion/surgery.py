"""Replacing layers in a copy of a model."""

import copy
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from dpnorm.conversion.affine import shrinkage_for
from dpnorm.conversion.kinds import has_plain_forward, is_batch_norm
from dpnorm.conversion.preceding import preceding_layers
from dpnorm.conversion.recipes import Exchange, Groups, Init, Preparation, Variant
from dpnorm.conversion.result import Change
from dpnorm.conversion.source import SourceNorm
from dpnorm.conversion.unusual import Fused, understood
from dpnorm.detection.families import is_uninitialized
from dpnorm.errors import ConversionError, InputError
from dpnorm.norms import EvoNormS0, RecordRMSNorm

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
Eps = float | Mapping[str, float] | None
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
    model: nn.Module,
    variant: Variant,
    *,
    init: Init,
    groups: Groups,
    select: Select,
    eps: Eps = None,
    graphs: list[fx.Graph] | None = None,
    dims: Mapping[str, int] | None = None,
) -> tuple[nn.Module, tuple[Change, ...], tuple[str, ...]]:
    """Replaces the selected BatchNorm layers of `model` in place.

    Returns the model, the changes, and the paths of blocks that now work out of place.

    A layer that stands at several places is replaced once and stays shared. When the model is
    itself a BatchNorm, the new layer is returned.

    Args:
        model: the model to change.
        variant: what to put in the layers' place.
        init: how scale and shift start.
        groups: as `convert` takes it.
        select: which layers.
        eps: as `convert` takes it.
        graphs: the model's graphs, for recipes that exchange the layer before a norm.
        dims: the number of dimensions behind the channel, by path, where it is known.
    """
    if variant.recipe is None:
        return model, (), ()
    shrinkage = shrinkage_for(model)
    norms, prepared = _to_replace(batch_norms(model, select)), Preparation()
    if variant.prepare is not None:
        layers = {path: layer for path, layer, _ in norms}
        prepared = variant.prepare(model, layers, _selector(select))
        norms = _to_replace(batch_norms(model, select))
    before = preceding_layers(model, [path for path, _, _ in norms], graphs)
    new_layers: dict[int, nn.Module] = {}
    changes = []
    for path, layer, fused in norms:
        preceding = before.get(path) if variant.wants_preceding else None
        source = SourceNorm.read(
            layer,
            path,
            dims=None if dims is None else dims.get(path),
            absolute=fused.absolute,
            preceding=(preceding, model.get_submodule(preceding)) if preceding else None,
            shrinkage=shrinkage,
            new_eps=eps.get(path) if isinstance(eps, Mapping) else eps,
        )
        built = variant.recipe(source, init, groups)
        exchange = Exchange(*built) if isinstance(built, tuple) else built
        new = exchange.layer
        _keep_flags(new, source)
        if exchange.preceding is not None and source.preceding is not None:
            _take_over(exchange.preceding, source.preceding)
            new_layers[id(source.preceding)] = exchange.preceding
        if fused.tail:
            new = nn.Sequential(new, *fused.tail)
        _take_over(new, layer)
        new_layers[id(layer)] = new
        note = prepared.notes.get(path)
        changes.append(
            Change(
                path,
                "" if path in prepared.added else _one_line(layer),
                _one_line(new),
                f"{exchange.detail}; {note}" if note else exchange.detail,
                groups=_groups_of(exchange.layer),
                eps=getattr(exchange.layer, "eps", None),
                statistics=source.measured,
            )
        )
    return _put(model, new_layers), tuple(changes), prepared.rewritten


def _to_replace(norms: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module, Fused]]:
    """The layers to replace, with what each computes; constant ones are left out.

    Raises:
        ConversionError: a layer has a forward of its own that cannot be told.
    """
    found = []
    for path, layer in norms:
        fused = Fused() if has_plain_forward(layer) else understood(layer)
        if fused is None:
            raise ConversionError(
                f"{path}: {type(layer).__module__}.{type(layer).__qualname__} has a forward of "
                "its own that is not BatchNorm followed by a known activation, and a conversion "
                "would lose it: exchange this layer by hand, or leave it out with select="
            )
        if not fused.constant:
            found.append((path, layer, fused))
    return found


def _put(model: nn.Module, new_layers: dict[int, nn.Module]) -> nn.Module:
    """Puts new layers at every place of the old ones, keeping the order of the state dict."""
    places = [(p, new_layers.get(id(m))) for p, m in model.named_modules(remove_duplicate=False)]
    for path, new in places:
        if new is None:
            continue
        if not path:
            return new
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        owner._modules[name] = new
    return model


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


def _groups_of(layer: Any) -> int | None:
    """How many groups of channels a layer normalizes, or None where it has no groups."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, (nn.LayerNorm, RecordRMSNorm)):
        return 1
    if isinstance(layer, EvoNormS0):
        return layer.groups
    return layer.num_features if isinstance(layer, _InstanceNorm) else None


def _take_over(new: Any, old: nn.Module) -> None:
    """Gives the new layer the mode and the hooks of the old one."""
    for name in _HOOKS:
        hooks = getattr(old, name, None)
        if hooks:
            getattr(new, name).update(hooks)
    if old._is_full_backward_hook is not None:
        new._is_full_backward_hook = old._is_full_backward_hook
    new.train(old.training)


def _keep_flags(new: nn.Module, source: SourceNorm) -> None:
    new.train(source.training)
    for name, parameter in new.named_parameters():
        trainable = source.bias_trainable if name.endswith("bias") else source.weight_trainable
        parameter.requires_grad_(trainable)


def _one_line(module: nn.Module) -> str:
    return " ".join(str(module).split())
