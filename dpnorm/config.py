"""Configurations: frozen pydantic models whose mistakes are one clear line."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dpnorm.errors import InputError


class Config(BaseModel):
    """Base of configurations: frozen, unknown keys are errors that name the nearest match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
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
