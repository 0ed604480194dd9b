"""Checkpoints of a private training: what is needed to go on under the same account."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dpnorm.errors import InputError, RefusedError
from dpnorm.privacy.arguments import is_number
from dpnorm.privacy.checkpoint import read_state, require_same, write_state
from dpnorm.privacy.ledger import Ledger
from dpnorm.privacy.optimizer import PrivateOptimizer

if TYPE_CHECKING:
    from dpnorm.privacy.engine import PrivacyEngine

_PARTS = {
    "module": dict,
    "accountant": str,
    "ledger": dict,
    "run": str,
    "terms": dict,
    "current": dict,
    "generators": dict,
    "extra": dict,
}


def save_training(
    path: str | Path,
    *,
    engine: "PrivacyEngine",
    module: nn.Module,
    optimizer: PrivateOptimizer | None,
    noise_scheduler: Any,
    grad_clip_scheduler: Any,
    extra: dict[str, Any],
) -> None:
    """Writes a checkpoint; see `PrivacyEngine.save_checkpoint`."""
    _require_path(path)
    model, own = _trained(engine, module, optimizer)
    state: dict[str, Any] = {
        "module": dict(model.state_dict()),
        "accountant": engine.accountant.mechanism(),
        "ledger": engine.ledger.to_dict(),
        "run": engine.run,
        "terms": engine.terms(),
        "current": {"noise_multiplier": own.noise_multiplier, "max_grad_norm": own.max_grad_norm},
        "generators": {name: g.get_state() for name, g in engine.generators().items()},
        "extra": extra,
    }
    if optimizer is not None:
        state["optimizer"] = own.state_dict()
    for name, scheduler in (
        ("noise_scheduler", noise_scheduler),
        ("grad_clip_scheduler", grad_clip_scheduler),
    ):
        if scheduler is not None:
            state[name] = _state_of(scheduler)
    write_state(path, state)


def load_training(
    path: str | Path,
    *,
    engine: "PrivacyEngine",
    module: nn.Module,
    optimizer: PrivateOptimizer | None,
    noise_scheduler: Any,
    grad_clip_scheduler: Any,
) -> dict[str, Any]:
    """Reads a checkpoint into a training that was made private alike.

    Everything is compared before anything is changed; see `PrivacyEngine.load_checkpoint`.
    """
    _require_path(path)
    model, own = _trained(engine, module, optimizer)
    name = str(path)
    state = read_state(path)
    _require_parts(state, name)
    if state["accountant"] != engine.accountant.mechanism():
        raise InputError(
            f"{name!r} was accounted by {state['accountant']!r}, this engine by "
            f"{engine.accountant.mechanism()!r}: take PrivacyEngine(accountant="
            f"{state['accountant']!r})"
        )
    require_same(state["module"], dict(model.state_dict()), name)
    _require_terms(state["terms"], engine.terms())
    ledger = _ledger_in(state, name)
    _require_fresh(engine, ledger, name)
    schedulers = {"noise_scheduler": noise_scheduler, "grad_clip_scheduler": grad_clip_scheduler}
    for part, given in {"optimizer": optimizer, **schedulers}.items():
        _require_both(part, given, state, name)
    if optimizer is not None:
        _require_groups(state["optimizer"], own, name)
    generators = engine.generators()
    _require_generators(state["generators"], list(generators), name)

    model.load_state_dict(state["module"])
    if optimizer is not None:
        own.load_state_dict(state["optimizer"])
    for part, scheduler in schedulers.items():
        if scheduler is not None:
            scheduler.load_state_dict(state[part])
    own.begin_pass()
    own.noise_multiplier = state["current"]["noise_multiplier"]
    own.max_grad_norm = state["current"]["max_grad_norm"]
    for key, generator in generators.items():
        if key in state["generators"]:
            generator.set_state(state["generators"][key])
    engine.ledger.events[:] = ledger.events
    engine.run = state["run"]
    engine.resumed = True
    engine.accountant.history = ledger.history(engine.run)
    return state["extra"]


def _trained(
    engine: "PrivacyEngine", module: nn.Module, optimizer: PrivateOptimizer | None
) -> tuple[nn.Module, PrivateOptimizer]:
    """The model and the optimizer of an engine, if these are what was given.

    Raises:
        InputError: they are others, or nothing was made private yet.
    """
    model, own = engine.trained()
    if _plain(module) is not _plain(model):
        raise InputError(
            "module is not the model that this engine made private: pass the one that make_private "
            "returned"
        )
    if optimizer is not None and optimizer is not own:
        raise InputError(
            f"optimizer is a {type(optimizer).__name__} that is not this engine's: pass the one "
            "that make_private returned"
        )
    return _plain(model), own


def _plain(module: nn.Module) -> nn.Module:
    """The model without Opacus's wrappers."""
    while isinstance(inner := getattr(module, "_module", None), nn.Module):
        module = inner
    return module


def _state_of(scheduler: Any) -> dict[str, Any]:
    """A scheduler's state without the functions in it, which a fresh one has of its own."""
    return {key: value for key, value in scheduler.state_dict().items() if not callable(value)}


def _require_path(path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is a {type(path).__name__}: the name of a file is due")


def _require_parts(state: dict[str, Any], name: str) -> None:
    wrong = [part for part, kind in _PARTS.items() if not isinstance(state.get(part), kind)]
    if wrong:
        raise InputError(
            f"{name!r} is no checkpoint of a private training: it lacks {', '.join(wrong)}; "
            "take a file that PrivacyEngine.save_checkpoint wrote"
        )
    noise, clip = (state["current"].get(key) for key in ("noise_multiplier", "max_grad_norm"))
    if not (is_number(noise) and noise >= 0 and is_number(clip) and clip > 0):
        raise InputError(
            f"{name!r} is damaged: it has noise multiplier {noise!r} and clipping norm {clip!r}; "
            "take a file that PrivacyEngine.save_checkpoint wrote"
        )


def _require_terms(saved: dict[str, Any], present: dict[str, Any]) -> None:
    for key, value in present.items():
        before = saved.get(key)
        alike = before == value or (
            isinstance(before, float)
            and isinstance(value, float)
            and math.isclose(before, value, rel_tol=1e-9)
        )
        if not alike:
            raise RefusedError(
                f"refused: {key} was {before} when the checkpoint was written and is {value} now: "
                "a training goes on under the terms it began with; pass the same to make_private, "
                "or begin a new run with ledger= of the earlier one"
            )


def _ledger_in(state: dict[str, Any], name: str) -> Ledger:
    try:
        return Ledger.from_dict(state["ledger"])
    except InputError as error:
        raise InputError(
            f"{name!r} is damaged: {error}; take a file that PrivacyEngine.save_checkpoint wrote"
        ) from None


def _require_fresh(engine: "PrivacyEngine", ledger: Ledger, name: str) -> None:
    """Raises an InputError where a ledger would lose what was released."""
    if len(engine.accountant):
        raise InputError(
            "this engine has taken steps already, and their account would be lost: load the "
            "checkpoint before the first step"
        )
    own = engine.ledger.events
    if ledger.events[: len(own)] != own:
        raise InputError(
            f"this engine's ledger holds runs ({', '.join(engine.ledger.runs())}) that {name!r} "
            "does not begin with, and they would be lost: load the checkpoint into an engine with "
            "the ledger of the earlier runs, or with an empty one"
        )


def _require_both(part: str, given: Any, state: dict[str, Any], name: str) -> None:
    if given is None and part in state:
        raise InputError(f"{name!r} holds the state of the {_words(part)}: pass {part}=")
    if given is not None and part not in state:
        raise InputError(
            f"{name!r} does not hold the state of the {_words(part)}: leave out {part}=, or pass "
            "it to save_checkpoint too"
        )
    if given is not None and part != "optimizer":
        found, needed = state[part], _state_of(given)
        if not isinstance(found, dict) or found.keys() != needed.keys():
            raise InputError(
                f"{name!r} is of another {_words(part)} than this {type(given).__name__}: it has "
                f"{_listed(found)}, needed are {_listed(needed)}"
            )


def _require_groups(saved: Any, optimizer: PrivateOptimizer, name: str) -> None:
    found, wanted = _groups(saved), _groups(optimizer.state_dict())
    if found != wanted:
        kind = type(optimizer.original_optimizer).__name__
        raise InputError(
            f"{name!r} is of another optimizer than this {kind}: it has groups of "
            f"{_in_words(found)}, this one has {_in_words(wanted)}; build the optimizer as it was"
        )


def _groups(state: Any) -> list[tuple[int, list[str]]] | None:
    """How many parameters each group has, and which options; None where there are no groups."""
    try:
        groups = [(list(g["params"]), sorted(g.keys() - {"params"})) for g in state["param_groups"]]
        order = list(range(sum(len(params) for params, _ in groups)))
        sound = [p for params, _ in groups for p in params] == order
        sound = sound and state["state"].keys() <= set(order)
    except (KeyError, TypeError, AttributeError):
        return None
    return [(len(params), options) for params, options in groups] if sound else None


def _in_words(groups: list[tuple[int, list[str]]] | None) -> str:
    if groups is None:
        return "no parameters"
    return " and ".join(f"{count} parameters with {_listed(names)}" for count, names in groups)


def _require_generators(saved: dict[str, Any], own: list[str], name: str) -> None:
    states = [saved[key] for key in own if key in saved]
    if not all(isinstance(state, Tensor) for state in states):
        raise InputError(f"{name!r} is damaged: the state of a random generator is no tensor")


def _listed(names: Any) -> str:
    known = names and isinstance(names, (dict, list))
    return ", ".join(sorted(map(str, names))) if known else "nothing"


def _words(part: str) -> str:
    return part.replace("grad_clip", "clipping").replace("_", " ")
