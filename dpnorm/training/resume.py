"""Checkpoints of a training: written beside and renamed, compared before anything is changed."""

import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dpnorm.errors import InputError, StoppedError
from dpnorm.privacy import Ledger
from dpnorm.privacy.checkpoint import read_state, require_same, write_state
from dpnorm.training.config import Settings
from dpnorm.training.journal import Journal
from dpnorm.training.loop import Loop
from dpnorm.training.private import PrivateSteps

NEEDED = "a checkpoint that dpnorm.train wrote"
_FREE = ("workers", "evaluate_every")  # what may change when a training goes on
_CHOSEN = ("grad_sample_mode", "physical_batch_size")  # what a machine may choose, once
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


def journal_of(path: Path) -> Path:
    """Where the steps are written down that were begun after a checkpoint."""
    return path.with_name(path.name + ".steps")


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


def settled(settings: Settings, saved: dict[str, Any]) -> Settings:
    """The settings with what the machine chose when the training began."""
    terms = saved["terms"]
    given = settings.model_dump()
    chosen = {
        key: terms[key]
        for key in _CHOSEN
        if given[key] in (None, "auto") and terms.get(key) not in (None, "none")
    }
    return settings.model_copy(update=chosen)


def require_terms(saved: dict[str, Any], present: dict[str, Any], name: str) -> None:
    """Raises an InputError where a training would go on as another one.

    Raises:
        InputError: the data, the settings or the privacy are not those it began with.
    """
    for key, value in _flat(present).items():
        before = _flat(saved).get(key)
        if not _alike(before, value):
            raise InputError(
                f"{name!r} is of another training: {key} was {before} and is {value} now; pass "
                "what it began with, or another path for a new training"
            )


class Keeper:
    """Writes checkpoints on the way, and ends a training that is asked to stop.

    Args:
        path: of the checkpoint; None for a training that keeps none.
        every: seconds between two checkpoints.
        terms: what a training that goes on must have in common with this one.
        should_stop: asked after each step.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        every: float,
        terms: dict[str, Any],
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._path, self._every, self._terms = path, every, terms
        self._should_stop = should_stop or (lambda: False)
        self._token = secrets.token_hex(8)
        self._journal: Journal | None = None
        self._written = time.monotonic()

    def begin(self, loop: Loop) -> None:
        """A training begins: from now on there is something to go on from."""
        if self._path is not None:
            if loop.team.is_first and loop.method.journaled:
                self._journal = Journal(journal_of(self._path), self._token)
            self.save(loop)

    def go_on(self, loop: Loop, saved: dict[str, Any]) -> None:
        """A training goes on from a checkpoint; steps that were lost are accounted."""
        assert self._path is not None
        name = str(self._path)
        require_terms(saved["terms"], self._terms, name)
        require_same(saved["model"], dict(loop.model.state_dict()), name)
        self._token, begun = saved["token"], saved["step"] + saved["lost"]
        if loop.team.is_first and loop.method.journaled:
            self._journal, begun = Journal.read(journal_of(self._path), self._token)
        loop.load(saved)
        if isinstance(loop.method, PrivateSteps):
            loop.method.ledger.events[:] = Ledger.from_dict(saved["ledger"]).events
            own = float(max(0, begun - loop.step - loop.lost))
            lost = int(loop.team.total(torch.tensor(own, device=loop.team.device)))
            loop.method.book(lost)
            loop.lost += lost
        self.save(loop)

    def before_step(self) -> None:
        if self._journal is not None:
            self._journal.begin()

    def after_step(self, loop: Loop) -> None:
        due = loop.step == loop.last or time.monotonic() - self._written >= self._every
        due, stop = loop.team.any(due, self._should_stop())
        if (due or stop) and self._path is not None:
            self.save(loop)
        if stop:
            kept = "" if self._path is None else f"; {str(self._path)!r} holds it"
            raise StoppedError(f"stopped after step {loop.step} of {loop.last}{kept}")

    def save(self, loop: Loop) -> None:
        """Writes the checkpoint, and then begins the journal anew."""
        assert self._path is not None
        state = loop.state()
        if loop.team.is_first:
            about = {"terms": self._terms, "token": self._token, "ledger": {}, "run": ""}
            if isinstance(loop.method, PrivateSteps):
                about |= {"ledger": loop.method.ledger.to_dict(), "run": loop.method.run}
            write_state(self._path, state | about)
        if self._journal is not None:
            self._journal.restart(loop.step + loop.lost)
        self._written = time.monotonic()

    def close(self) -> None:
        """Lets the journal go."""
        if self._journal is not None:
            self._journal.close()


def terms_of(
    settings: Settings, loop_terms: dict[str, Any], privacy: Any, data: dict[str, Any], world: int
) -> dict[str, Any]:
    """What two parts of one training have in common, as plain data."""
    left_out = (*_FREE, *_CHOSEN)
    kept = {key: value for key, value in settings.model_dump().items() if key not in left_out}
    return {
        "data": data,
        "training": kept,
        "privacy": None if privacy is None else privacy.model_dump(),
        "processes": world,
        **loop_terms,
    }


def resumed_ledger(ledger: Ledger | None, saved: dict[str, Any], name: str) -> Ledger:
    """The ledger of a training that goes on, without its own steps.

    Raises:
        InputError: the ledger that is given holds other runs than the checkpoint's.
    """
    before = Ledger.from_dict(saved["ledger"])
    others = [event for event in before.events if event.run != saved["run"]]
    if ledger is None:
        ledger = Ledger()
    elif [event for event in ledger.events if event.run != saved["run"]] != others:
        raise InputError(
            f"the ledger holds other runs ({', '.join(ledger.runs()) or 'none'}) than {name!r} "
            f"began with ({', '.join(before.runs()) or 'none'}): pass the ledger of that time"
        )
    ledger.events[:] = others
    return ledger


def _flat(terms: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in terms.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b
