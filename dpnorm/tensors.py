"""Files of tensors: one safetensors file with a JSON manifest in it, never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpnorm.errors import InputError
from dpnorm.files import replacing

_KEY = "dpnorm"
_LARGEST_MANIFEST = 90_000_000  # bytes; safetensors reads no header above 100 MB
_SHOWN = 3


def write_tensors(
    path: str | Path, tensors: dict[str, Tensor], manifest: Mapping[str, Any]
) -> None:
    """Writes tensors and a manifest, atomically.

    Args:
        path: the file; its folder must exist, a file of that name is replaced.
        tensors: contiguous, and no two of them in the same storage.
        manifest: what `json` can write.

    Raises:
        InputError: the folder does not exist, `path` is a folder, or the manifest is too long.
        OSError: the file cannot be written; what stood at `path` is as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"cannot save to {str(path)!r}: the folder does not exist")
    if target.is_dir():
        raise InputError(f"cannot save to {str(path)!r}: it is a folder, the name of a file is due")
    text = json.dumps(manifest)
    length = len(json.dumps(text))
    if length > _LARGEST_MANIFEST:
        raise InputError(
            f"cannot save to {str(path)!r}: what is not a tensor takes {length / 1e6:.0f} MB, at "
            f"most {_LARGEST_MANIFEST / 1e6:.0f} MB fit: hold long lists of numbers as tensors"
        )
    with replacing(target) as temporary:
        try:
            save_file(tensors, str(temporary), {_KEY: text})
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


def read_tensors(path: str | Path, needed: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_tensors` wrote; nothing in a file is ever executed.

    Args:
        path: the file.
        needed: what the file should be, for the messages.

    Returns:
        The manifest and the tensors, on the CPU and in memory of their own: a later change of the
        file does not reach them.

    Raises:
        InputError: there is no such file, it cannot be read, it is a pickle, it is damaged, or it
            has no manifest.
    """
    from safetensors import SafetensorError, safe_open

    target = Path(path)
    if target.is_dir():
        raise InputError(f"{str(path)!r} is a folder: needed is {needed}")
    if not target.is_file():
        raise InputError(f"no file {str(path)!r}: needed is {needed}")
    try:
        with safe_open(str(target), framework="pt") as file:
            manifest = _manifest(path, (file.metadata() or {}).get(_KEY), needed)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise InputError(f"{path} {_cause(target, error)}; needed is {needed}") from error
    return manifest, tensors


def digest_of(structure: Any, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over plain data and named tensors, in hexadecimal.

    It tells damage, and no forgery: whoever can write a file can write its digest too.

    Args:
        structure: what `json` can write; the order of its keys does not matter.
        tensors: dense ones; their names, dtypes, shapes and bytes count, their order does not.
    """
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def require_same(
    saved: Mapping[str, Tensor], model_state: Mapping[str, Tensor], what: str, dtypes: bool = True
) -> None:
    """Refuses saved entries that are not, name by name, of the model's shapes and dtypes.

    Values that are no tensors (extra state) are compared by their type.

    Args:
        saved: what a file holds.
        model_state: what it is to be loaded into, as `state_dict` gives it.
        what: the file, or a part of it, for the message.
        dtypes: whether dtypes must agree too.

    Raises:
        InputError: entries are missing, not expected, of another shape or of another dtype.
    """
    if not isinstance(saved, Mapping):
        raise InputError(
            f"{what} does not fit the model: it is a {type(saved).__name__}, "
            "needed are named tensors, as state_dict gives them"
        )
    both = sorted(saved.keys() & model_state.keys(), key=str)
    found = [
        ("the model has entries that the file lacks", list(model_state.keys() - saved.keys())),
        ("the file has entries that the model lacks", list(saved.keys() - model_state.keys())),
        ("entries have other shapes", _differing(saved, model_state, both, _shape)),
    ]
    if dtypes:
        found.append(("entries have other dtypes", _differing(saved, model_state, both, _dtype)))
    texts = [f"{text}: {_few(names)}" for text, names in found if names]
    if texts:
        raise InputError(
            f"{what} does not fit the model: {'; '.join(texts)}; "
            "build the model as it was when the file was written"
        )


def _manifest(path: str | Path, text: str | None, needed: str) -> dict[str, Any]:
    if text is None:
        raise InputError(f"{path} holds tensors but no manifest of dpnorm: needed is {needed}")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged: its manifest is no JSON ({error}); needed is {needed}"
        ) from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged: its manifest is no JSON object; needed is {needed}")
    return manifest


def _cause(path: Path, error: Exception) -> str:
    """What a file is that safetensors cannot read."""
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        return "is empty: it was cut off, or never written"
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    # A safetensors file, too, can begin so: its first eight bytes are a length, then comes "{".
    if head[:4] == b"PK\3\4" or (pickled and head[8:] != b"{"):
        return (
            "is a pickle or a zip file, as torch.save writes them: no pickle is loaded, because "
            "loading one can run any code"
        )
    reason = str(error).partition("\n")[0]
    return f"is not a safetensors file, or is cut off or damaged ({reason})"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else ""


def _differing(saved: Any, wanted: Any, names: list[str], describe: Any) -> list[str]:
    pairs = [(name, describe(saved[name]), describe(wanted[name])) for name in names]
    return [f"{name} is {a} in the file, {b} in the model" for name, a, b in pairs if a != b]


def _few(names: list[str]) -> str:
    shown = ", ".join(sorted(map(str, names))[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} ... ({len(names)} in all)"
