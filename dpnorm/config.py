"""Configurations: frozen pydantic models whose mistakes are one clear line."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dpnorm.errors import InputError


class Config(BaseModel):
    """Base of configurations: frozen, unknown keys are errors that name the nearest match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(_first_mistake(type(self), error)) from None


def _first_mistake(config: type[BaseModel], error: ValidationError) -> str:
    """The first mistake of a validation as one line: where, what came, what is needed."""
    mistake = error.errors()[0]
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = list(config.model_fields)
        near = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {where!r}: allowed are {', '.join(known)}{hint}"
    if mistake["type"] == "missing":
        return f"the key {where!r} is missing"
    reason = mistake["msg"].removeprefix("Value error, ")
    prefix = "Input should be "
    if reason.startswith(prefix):
        return f"{where} is {mistake['input']!r}: it should be {reason.removeprefix(prefix)}"
    return f"{where}: {reason}" if where else reason


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        InputError: there is no such file, it cannot be read, or it is not TOML.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def assigned(values: Mapping[str, Any], override: str) -> dict[str, Any]:
    """The sections with KEY=VALUE: a dotted key, and a value that is a string where it is not TOML.

    >>> assigned({"training": {"lr": 0.1, "epochs": 2}}, "training.lr=0.2")
    {'training': {'lr': 0.2, 'epochs': 2}}

    Raises:
        InputError: there is no "=", or no key, or the key goes through what is no section.
    """
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise InputError(f"the override {override!r} should be KEY=VALUE, as training.lr=0.2")
    found = dict(values)
    section = found
    for parent in parents:
        old = section.get(parent)
        if old is not None and not isinstance(old, Mapping):
            raise InputError(f"the override {override!r}: {parent!r} is not a section")
        section[parent] = dict(old or {})
        section = section[parent]
    try:
        section[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        section[last] = text
    return found


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sections with changes on top; a section keeps the keys that no change names.

    Raises:
        InputError: a change has a section where there is a value.
    """
    found = dict(values)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            old = found.get(key)
            if old is not None and not isinstance(old, Mapping):
                raise InputError(
                    f"{key!r} is not a section, but {old!r}: it takes no {list(value)}"
                )
            found[key] = merged(old or {}, value)
        else:
            found[key] = value
    return found
