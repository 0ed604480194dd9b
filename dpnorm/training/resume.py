"""Checkpoints of a training: written beside and renamed, compared before anything is changed."""

import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpnorm.errors import DpnormError, InputError, StoppedError, StorageError
from dpnorm.privacy import Event, Ledger
from dpnorm.privacy.checkpoint import write_state
from dpnorm.training.checkpoint import CHOSEN, ledger_in, require_state
from dpnorm.training.config import Settings
from dpnorm.training.journal import Journal
from dpnorm.training.loop import Loop
from dpnorm.training.private import PrivateSteps
from dpnorm.training.team import Team

_FREE = ("workers", "evaluate_every")  # what may change when a training goes on


def journal_of(path: Path) -> Path:
    """Where the steps are written down that were begun after a checkpoint."""
    return path.with_name(path.name + ".steps")


def require_terms(saved: dict[str, Any], present: dict[str, Any], name: str) -> None:
    """Raises an InputError where a training would go on as another one.

    Raises:
        InputError: the data, the settings or the privacy are not those it began with.
    """
    then, now = _flat(saved), _flat(present)
    parts = list(dict.fromkeys([*present, *saved]))
    for key in sorted({**now, **then}, key=lambda key: parts.index(key.partition(".")[0])):
        before, value = then.get(key), now.get(key)
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
        self._team = Team()
        self._written = time.monotonic()

    def begin(self, loop: Loop) -> None:
        """A training begins: from now on there is something to go on from."""
        self._team = loop.team
        if self._path is not None:
            if loop.method.journaled:
                journal = Journal(journal_of(self._path), self._token)
                self._by_first(lambda: journal.restart(0))  # no checkpoint could go on without it
                self._journal = journal
            self.save(loop)

    def go_on(self, loop: Loop, saved: dict[str, Any]) -> None:
        """A training goes on from a checkpoint; steps that were lost are accounted.

        Everything is compared before anything is changed, the ledger above all.
        """
        assert self._path is not None
        self._team, name = loop.team, str(self._path)
        require_terms(saved["terms"], self._terms, name)
        require_state(saved, loop, name)
        self._token, known = saved["token"], saved["step"] + saved["lost"]
        begun, most = known, loop.method.steps
        journal = None
        if loop.method.journaled:  # each process reads it, so that all raise where one does
            journal, begun = Journal.read(journal_of(self._path), self._token)
            if not known <= begun <= loop.method.steps:
                raise InputError(
                    f"{str(journal_of(self._path))!r} is damaged: it holds {begun} steps, and "
                    f"{name!r} {known} of {loop.method.steps}; begin a new run"
                )
            most = begun
        if isinstance(loop.method, PrivateSteps):
            _require_own(loop.method, most, name)
        loop.load(saved)
        if isinstance(loop.method, PrivateSteps):
            loop.method.ledger.events[:] = ledger_in(saved, name).events
            loop.method.book(begun - known)
            loop.lost += begun - known
        self._journal = journal
        self.save(loop)

    def before_step(self) -> None:
        if self._journal is not None:
            self._by_first(self._journal.begin)

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
        state, path = loop.state(), self._path

        def write() -> None:
            about = {"terms": self._terms, "token": self._token, "ledger": {}, "run": ""}
            if isinstance(loop.method, PrivateSteps):
                about |= {"ledger": loop.method.ledger.to_dict(), "run": loop.method.run}
            write_state(path, state | about)
            if self._journal is not None:
                self._journal.restart(loop.step + loop.lost)

        self._by_first(write)
        self._written = time.monotonic()

    def _by_first(self, write: Callable[[], None]) -> None:
        """Lets the first process write; the others wait, and raise where it cannot."""
        failed: DpnormError | None = None
        if self._team.is_first:
            try:
                write()
            except DpnormError as error:
                failed = error
        if self._team.any(failed is not None)[0]:
            raise failed or StorageError("the first process cannot write, and says why")

    def close(self) -> None:
        """Lets the journal go."""
        if self._journal is not None:
            self._journal.close()


def terms_of(
    settings: Settings, loop_terms: dict[str, Any], privacy: Any, data: dict[str, Any], world: int
) -> dict[str, Any]:
    """What two parts of one training have in common, as plain data."""
    left_out = (*_FREE, *CHOSEN)
    kept = {key: value for key, value in settings.model_dump().items() if key not in left_out}
    return {
        "data": data,
        "training": kept,
        "privacy": None if privacy is None else privacy.model_dump(),
        "processes": world,
        **loop_terms,
    }


def resumed_ledger(ledger: Ledger | None, saved: dict[str, Any], name: str) -> Ledger:
    """The ledger of a training that goes on; one that is given stays as it is until all fits.

    Raises:
        InputError: the ledger that is given holds other runs than the checkpoint's.
    """
    before, run = ledger_in(saved, name), saved["run"]
    if ledger is None:
        return before
    if _without(ledger, run) != _without(before, run):
        raise _other_ledger(ledger, before, name)
    return ledger


def _require_own(method: PrivateSteps, most: int, name: str) -> None:
    """Raises an InputError where another training of the same name would be taken out."""
    own = method.ledger.of(method.run)
    alike = all(_alike(event.entry[:2], (method.noise, method.rate)) for event in own)
    if not alike or sum(event.steps for event in own) > most:
        raise InputError(
            f"the ledger holds a run {method.run!r} that is not the one of {name!r}: pass the "
            "ledger with which it began, or none"
        )


def _without(ledger: Ledger, run: str) -> list[Event]:
    return [event for event in ledger.events if event.run != run]


def _other_ledger(ledger: Ledger, before: Ledger, name: str) -> InputError:
    return InputError(
        f"the ledger holds other runs ({', '.join(ledger.runs()) or 'none'}) than {name!r} "
        f"({', '.join(before.runs()) or 'none'}): pass the ledger with which it began, or none"
    )


def _flat(terms: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in terms.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b
