"""Conversions on disk: one safetensors file with the manifest in it, never a pickle."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpnorm.conversion.manifest import FORMAT, tensors_of
from dpnorm.errors import ConversionError, InputError
from dpnorm.files import write_text
from dpnorm.tensors import read_tensors, require_same, write_tensors

if TYPE_CHECKING:
    from dpnorm.conversion.result import Conversion

_SUFFIX = ".safetensors"


def save(conversion: "Conversion", path: str | Path) -> None:
    """Writes a conversion; see `Conversion.save`."""
    target = Path(path)
    if target.suffix != _SUFFIX:
        raise InputError(f"cannot save to {str(path)!r}: the name must end in {_SUFFIX}")
    tensors, same = _unshared(tensors_of(conversion.model))
    manifest = conversion.manifest.to_dict() | {"same": same, "hash": conversion.hash}
    write_tensors(target, tensors, manifest)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    beside = conversion.to_dict() | {"hash": manifest["hash"], "weights_sha256": digest}
    write_text(target.with_suffix(".json"), json.dumps(beside, indent=2) + "\n")


def load(path: str | Path, model: nn.Module) -> "Conversion":
    """Converts a fresh model by the manifest of a file and loads its weights.

    Args:
        path: a file that `Conversion.save` wrote.
        model: the source architecture, before conversion; it is not changed.

    Returns:
        A conversion whose model gives the outputs of the one that was saved, with the saved dtypes,
        on the device and in the modes of `model`.

    Raises:
        InputError: the file is missing or damaged, or does not fit the model.
    """
    from dpnorm.conversion.convert import convert
    from dpnorm.conversion.result import Conversion

    manifest, tensors = _read(Path(path))
    layers = {layer["path"]: layer for layer in manifest["layers"]}
    groups = {p: layer["groups"] for p, layer in layers.items() if layer["groups"] is not None}
    eps = {p: layer["eps"] for p, layer in layers.items() if layer["eps"] is not None}
    try:
        fresh = convert(
            model,
            to=manifest["to"],
            init=manifest["init"],
            groups=groups,
            eps=eps,
            select=lambda path, module: path in layers,
            statistics_origin=manifest["statistics_origin"],
        )
    except ConversionError as error:
        raise InputError(f"{path} does not fit this {type(model).__name__}: {error}") from error
    _require_same_layers(path, fresh, layers)
    _fill(path, fresh.model, tensors | {a: tensors[b] for a, b in manifest["same"].items()})
    changes = tuple(_restored(layers[change.path], change) for change in fresh.changes)
    loaded = Conversion(
        fresh.model,
        fresh.to,
        fresh.init,
        changes,
        rewritten=tuple(manifest["rewritten"]),
        kept_inplace=tuple(manifest["kept_inplace"]),
        statistics_origin=fresh.statistics_origin,
    )
    if loaded.hash != manifest["hash"]:
        raise InputError(
            f"{path} is damaged: its weights and manifest do not have the hash it states"
        )
    return loaded


def _unshared(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One entry for each tensor, and for each further name the name that holds its tensor."""
    first: dict[tuple[Any, ...], str] = {}
    tensors, same = {}, {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and place in first:
            same[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor.detach().contiguous().clone()
    return tensors, same


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    manifest, tensors = read_tensors(path, "a conversion that Conversion.save wrote")
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path} has format {manifest.get('format')}: this dpnorm reads {FORMAT}")
    return manifest, tensors


def _require_same_layers(path: Any, fresh: "Conversion", layers: dict[str, Any]) -> None:
    converted = {change.path: change for change in fresh.changes}
    for place, layer in layers.items():
        change = converted.get(place)
        if change is None:
            raise InputError(f"{path} does not fit: the model has no BatchNorm layer {place!r}")
        if change.after != layer["after"]:
            raise InputError(
                f"{path} does not fit: {place!r} would become {change.after}, the file has "
                f"{layer['after']}"
            )


def _fill(path: Any, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    require_same(tensors, tensors_of(model), str(path), dtypes=False)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in held.items():
        if name in tensors:
            tensor.data = tensor.data.to(tensors[name].dtype)
    with torch.no_grad():
        model.load_state_dict(tensors)


def _restored(layer: dict[str, Any], change: Any) -> Any:
    from dataclasses import replace

    return replace(
        change,
        before=layer["before"],
        detail=layer["detail"],
        statistics=layer["statistics"] != "none",
    )
