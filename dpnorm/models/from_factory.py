"""A user's own model: `package.module:factory`."""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from dpnorm.errors import InputError


def build_from_factory(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Imports the module, calls the factory, and returns the model that it made.

    **This runs the code of the module.** It is imported only because its name was given. The
    current directory is importable meanwhile.

    Args:
        name: `package.module:factory`; the factory is a function or a class, and may be an
            attribute of one (`module:Class.create`).
        arguments: those that the factory's signature takes are passed by keyword; one that is
            None is left to the factory's default.

    Raises:
        InputError: the name is malformed, the module or the attribute is missing, the factory
            cannot be called, raises, or returns no nn.Module.
    """
    module_name, _, attribute = name.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise InputError(
            f"cannot read the model name {name!r}: a model of your own is written "
            "package.module:factory (no path, no .py), as in mypackage.nets:small_net"
        )
    with _current_directory_importable():
        factory = _factory(name, module_name, attribute)
        passed = _accepted(factory, arguments)
        try:
            built = factory(**passed)
        except (Exception, SystemExit) as error:
            listed = ", ".join(f"{key}={value!r}" for key, value in passed.items())
            raise InputError(
                f"the factory {name!r}, called with ({listed}), raised {_described(error)}; "
                "it must build a model from these arguments"
            ) from error
    if not isinstance(built, nn.Module):
        raise InputError(
            f"the factory {name!r} returned {_kind(built)}; it must return a torch.nn.Module"
        )
    return built


def _factory(name: str, module_name: str, attribute: str) -> Callable[..., Any]:
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise InputError(
                f"cannot build {name!r}: there is no module {missing!r} on the Python path or in "
                f"the current directory {os.getcwd()!r}; check the spelling, or run from its folder"
            ) from error
        raise InputError(
            f"cannot build {name!r}: importing {module_name!r} raised {_described(error)}; "
            "the module must import without error"
        ) from error
    for step in attribute.split("."):
        if not hasattr(found, step):
            raise InputError(
                f"cannot build {name!r}: {module_name!r} has no attribute {attribute!r}; name a "
                f"function or class in {getattr(sys.modules[module_name], '__file__', module_name)}"
            )
        found = getattr(found, step)
    if isinstance(found, nn.Module):
        raise InputError(
            f"cannot build {name!r}: this is a model already built, which every caller would "
            "share; name a function or class that builds it"
        )
    if not callable(found):
        raise InputError(
            f"cannot build {name!r}: this is {_kind(found)}, which cannot be called; name a "
            "function or class that builds the model"
        )
    return found


def _accepted(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):  # a callable without a signature
        return {}
    by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    return {
        key: value
        for key, value in arguments.items()
        if value is not None and (anything or key in by_name)
    }


@contextlib.contextmanager
def _current_directory_importable() -> Iterator[None]:
    directory = os.getcwd()
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(directory)


def _described(error: BaseException) -> str:
    """The error on one line, without a traceback."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
