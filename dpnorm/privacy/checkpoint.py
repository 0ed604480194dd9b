"""A nested training state in one file: tensors in safetensors, the structure around them in JSON.

The structure is JSON in which a list stands for a list, a number or a text for itself, and an
object for everything else: it has one entry, whose key says what the value is.

    {"dict": [[key, value], ...]}   {"tuple": [...]}   {"tensor": name}   {"complex": name}
    {"float": "inf"}   {"int": "0x..."}

A SHA-256 of structure and tensors stands beside the structure, so that a flipped bit is an error.
"""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from dpnorm.errors import InputError
from dpnorm.tensors import digest_of, read_tensors, require_same, write_tensors

__all__ = ["read_state", "require_same", "write_state"]

FORMAT = "dpnorm-training-state"
VERSION = 1

_NEEDED = "a checkpoint that PrivacyEngine.save_checkpoint wrote"
_DEEPEST = 100
_EXACT = 2**53  # other readers of JSON hold integers as float64


def write_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes a nested state to one file, atomically and without pickle.

    A state is made of mappings with keys that are str or int, lists, tuples, tensors, numbers,
    str and None. Mappings of any kind come back as dict, `torch.Size` as tuple, NumPy scalars as
    Python numbers, parameters as tensors; everything else comes back as it was. Tensors that share
    memory are written once for each place.

    Args:
        path: the file; its folder must exist, a file of that name is replaced.
        state: for example `{"model": model.state_dict(), "optimizer": optimizer.state_dict()}`.

    Raises:
        InputError: a value or a key cannot be written, with its place in the state; or the folder
            does not exist. Nothing is written.
        OSError: the file cannot be written; what stood at `path` is as it was.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"the state is a {type(state).__name__}: a mapping is needed")
    tensors: dict[str, Tensor] = {}
    structure = _packed(state, (), tensors)
    own = _in_own_storage(tensors)
    manifest = {"format": FORMAT, "version": VERSION, "state": structure}
    write_tensors(path, own, manifest | {"sha256": digest_of(structure, own)})


def read_state(path: str | Path, needed: str = _NEEDED) -> dict[str, Any]:
    """Reads what `write_state` wrote, with the tensors on the CPU; nothing is ever executed.

    Args:
        path: the file.
        needed: what the file should be, for the messages.

    Raises:
        InputError: there is no such file, it is a pickle, it is not a checkpoint, it is damaged,
            or a newer dpnorm wrote it.
    """
    manifest, tensors = read_tensors(path, needed)
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is not a checkpoint (its format is {manifest.get('format')!r}): needed is "
            f"{needed}"
        )
    version = manifest.get("version")
    if version != VERSION:
        raise InputError(
            f"{path} has version {version!r} of the checkpoint format, this dpnorm reads "
            f"{VERSION}: load it with the dpnorm that wrote it, or a newer one"
        )
    try:
        if manifest.get("sha256") != digest_of(manifest.get("state"), tensors):
            raise ValueError("its content does not have the SHA-256 that it states")
        state = _unpacked(manifest.get("state"), tensors)
        if not isinstance(state, dict):
            raise ValueError(f"its state is a {type(state).__name__}, not a dict")
    except (ValueError, TypeError, RuntimeError) as error:  # RecursionError is one too
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged: {reason}; needed is {needed}") from error
    return state


def _packed(value: Any, place: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """The JSON of a value at a place; its tensors are added to `tensors`."""
    if len(place) > _DEEPEST:
        _refuse(place[:6], f"is nested deeper than {_DEEPEST} levels, or contains itself")
    if isinstance(value, Tensor):
        return _packed_tensor(value, place, tensors)
    if isinstance(value, Mapping):
        return {"dict": [_packed_item(k, v, place, tensors) for k, v in value.items()]}
    if type(value) in (list, tuple, torch.Size):
        items = [_packed(v, (*place, str(i)), tensors) for i, v in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    return _packed_scalar(value, place)


def _packed_item(key: Any, value: Any, place: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if type(key) not in (str, int):
        _refuse(place, f"has the key {key!r}, a {type(key).__name__}: keys must be str or int")
    long = type(key) is int and abs(key) >= _EXACT
    inner = (*place, hex(key) if long else str(key))
    return [_packed_scalar(key, inner), _packed(value, inner, tensors)]


def _packed_scalar(value: Any, place: tuple[str, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < _EXACT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    hint = ": torch.from_numpy makes it a tensor" if kind is np.ndarray else ""
    return _refuse(
        place,
        f"is a {kind.__name__}: a state holds tensors, numbers, str, None, and dicts, lists and "
        f"tuples of them{hint}",
    )


def _packed_tensor(value: Tensor, place: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if type(value) not in (Tensor, nn.Parameter):
        _refuse(place, f"is a {type(value).__name__}: only plain tensors can be written")
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "meta" if value.is_meta else "quantized" if value.is_quantized else value.layout
        _refuse(place, f"is a {kind} tensor: only dense ones, with data, can be written")
    dense = value.detach().resolve_conj().resolve_neg()
    tag = "tensor"
    if not _storable(value.dtype):
        if not value.is_complex():
            _refuse(place, f"is a tensor of {value.dtype}, which safetensors cannot hold")
        dense, tag = torch.view_as_real(dense), "complex"
    name = _unused(".".join(place), tensors)
    tensors[name] = dense
    return {tag: name}


@functools.cache
def _storable(dtype: torch.dtype) -> bool:
    from safetensors.torch import save

    try:
        save({"": torch.empty(0, dtype=dtype)})
    except KeyError:
        return False
    return True


def _unused(place: str, taken: dict[str, Tensor]) -> str:
    """A name for the tensor at a place: the place itself, unless `a.b` is there as `a`, `b` too."""
    stem = place.encode("utf-8", "backslashreplace").decode()
    name, count = stem, 1
    while name in taken or name == "__metadata__":
        count += 1
        name = f"{stem}#{count}"
    return name


def _in_own_storage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, each in memory that it shares with no other."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        copy = tensor.cpu().contiguous()
        if copy.untyped_storage().data_ptr() in seen:
            copy = copy.clone()
        seen.add(copy.untyped_storage().data_ptr())
        own[name] = copy
    return own


def _refuse(place: tuple[str, ...], why: str) -> NoReturn:
    raise InputError(f"cannot save: {'.'.join(place) or 'the state'} {why}")


def _unpacked(node: Any, tensors: dict[str, Tensor], depth: int = 0) -> Any:
    """The value of its JSON; raises ValueError where that is not what `_packed` writes."""
    if depth > _DEEPEST + 1:
        raise ValueError(f"its structure is nested deeper than {_DEEPEST} levels")
    if isinstance(node, list):
        return [_unpacked(inner, tensors, depth + 1) for inner in node]
    if not isinstance(node, dict):
        return node
    if len(node) != 1:
        raise ValueError(f"its structure has an object of {len(node)} entries, one is needed")
    [(tag, held)] = node.items()
    if tag == "tuple" and isinstance(held, list):
        return tuple(_unpacked(inner, tensors, depth + 1) for inner in held)
    if tag == "dict" and isinstance(held, list):
        return _unpacked_dict(held, tensors, depth)
    if tag in ("tensor", "complex") and isinstance(held, str):
        if held not in tensors:
            raise ValueError(f"its structure names a tensor that it does not hold: {held!r}")
        return tensors[held] if tag == "tensor" else torch.view_as_complex(tensors[held])
    if tag == "int" and isinstance(held, str):
        return int(held, 16)
    if tag == "float" and held in ("inf", "-inf", "nan"):
        return float(held)
    raise ValueError(f"its structure has an entry {tag!r} that this dpnorm does not know")


def _unpacked_dict(pairs: list[Any], tensors: dict[str, Tensor], depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("its structure has a dict with an entry that is no pair")
        key = _unpacked(pair[0], tensors, depth + 1)
        if type(key) not in (str, int) or key in found:
            raise ValueError(f"its structure has a dict with a wrong or repeated key, {key!r}")
        found[key] = _unpacked(pair[1], tensors, depth + 1)
    return found
