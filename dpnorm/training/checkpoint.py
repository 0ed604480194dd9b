"""Reading the checkpoint of a training: all that a file holds is compared before it is used."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dpnorm.errors import InputError
from dpnorm.privacy import Ledger
from dpnorm.privacy.checkpoint import read_state, require_same
from dpnorm.training.config import Settings
from dpnorm.training.loop import Loop
from dpnorm.training.private import PrivateSteps

NEEDED = "a checkpoint that dpnorm.train wrote"
CHOSEN = ("grad_sample_mode", "physical_batch_size")  # what a machine may choose, once
_PARTS = {
    "terms": dict,
    "token": str,
    "ledger": dict,
    "run": str,
    "step": int,
    "lost": int,
    "loss": float,
    "drawn": int,
    "history": list,
    "model": dict,
    "optimizer": dict,
    "average": dict,
    "random": dict,
}
_ROW = {"epoch", "step", "loss", "lr"}  # what each row of a history has
_SLOTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of a training, with nothing but what it must have.

    Raises:
        InputError: it is no such file, or it is damaged.
    """
    state = read_state(path, NEEDED)
    wrong = [part for part, kind in _PARTS.items() if not isinstance(state.get(part), kind)]
    if wrong:
        raise InputError(f"{str(path)!r} lacks {', '.join(wrong)}: needed is {NEEDED}")
    return state


def settled(settings: Settings, saved: dict[str, Any], name: str) -> Settings:
    """The settings with what the machine chose when the training began."""
    terms = saved["terms"]
    given = settings.model_dump()
    chosen = {
        key: terms[key]
        for key in CHOSEN
        if given[key] in (None, "auto") and terms.get(key) not in (None, "none")
    }
    try:
        return Settings(**(given | chosen))
    except InputError as error:
        raise _damaged(name, str(error)) from None


def ledger_in(saved: dict[str, Any], name: str) -> Ledger:
    """The ledger as it was when the checkpoint was written; empty for plain training.

    Raises:
        InputError: it cannot be read.
    """
    if not saved["run"]:
        return Ledger()
    try:
        return Ledger.from_dict(saved["ledger"])
    except InputError as error:
        raise _damaged(name, str(error)) from None


def require_state(saved: dict[str, Any], loop: Loop, name: str) -> None:
    """Raises an InputError where a checkpoint does not hold what this training has.

    Raises:
        InputError: it is of another model, or one of its parts is not what `Loop.state` gives.
    """
    require_same(saved["model"], dict(loop.model.state_dict()), name)
    counts = [saved[key] for key in ("step", "lost", "drawn")]
    average = {} if loop.average is None else loop.average.values
    sound: dict[str, Callable[[], bool]] = {
        "step": lambda: _are_counts(counts) and sum(counts[:2]) <= loop.method.steps,
        "history": lambda: all(map(_is_row, saved["history"])),
        "average": lambda: _described(saved["average"]) == _described(average),
        "random": lambda: _described(saved["random"]) == _described(loop.method.random_states()),
        "optimizer": lambda: _is_optimizer(saved["optimizer"], loop),
        "ledger": lambda: _is_account(saved, loop, name),
    }
    for part, holds in sound.items():
        if not holds():
            raise _damaged(name, f"its {part} is not what this training has")


def _damaged(name: str, why: str) -> InputError:
    return InputError(f"{name!r} is damaged: {why}; needed is {NEEDED}")


def _are_counts(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and row.keys() >= _ROW and all(map(_is_float, row.values()))


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _described(tensors: dict[str, Any]) -> dict[str, Any]:
    """Names, shapes and types."""
    return {
        name: (value.shape, value.dtype) if isinstance(value, Tensor) else None
        for name, value in tensors.items()
    }


def _is_optimizer(saved: dict[str, Any], loop: Loop) -> bool:
    """Whether a state is one of the training's optimizer, at whatever learning rate."""
    own = loop.method.optimizer.state_dict()
    groups, state = saved.get("param_groups"), saved.get("state")
    if not (isinstance(groups, list) and isinstance(state, dict)):
        return False
    if not all(isinstance(group, dict) and _is_float(group.get("lr")) for group in groups):
        return False
    if [group | {"lr": 0.0} for group in groups] != [g | {"lr": 0.0} for g in own["param_groups"]]:
        return False
    parameters = [p for group in loop.method.optimizer.param_groups for p in group["params"]]
    slots = _SLOTS[loop.settings.optimizer]
    return all(
        place in range(len(parameters))
        and isinstance(held, dict)
        and held.keys() == slots
        and all(_is_slot(value, parameters[place]) for value in held.values())
        for place, held in state.items()
    )


def _is_slot(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape in ((), parameter.shape)


def _is_account(saved: dict[str, Any], loop: Loop, name: str) -> bool:
    """Whether the ledger holds each step once, with the noise that it had."""
    if not isinstance(loop.method, PrivateSteps):
        return not saved["run"] and not saved["ledger"]
    method, own = loop.method, ledger_in(saved, name).of(saved["run"])
    return sum(event.steps for event in own) == saved["step"] + saved["lost"] and all(
        math.isclose(event.noise_multiplier, method.noise, rel_tol=1e-9)
        and math.isclose(event.sampling_rate, method.rate, rel_tol=1e-9)
        for event in own
    )
