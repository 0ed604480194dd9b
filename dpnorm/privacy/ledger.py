"""The ledger: every release of private data, run by run."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from dpnorm.errors import InputError
from dpnorm.files import write_text

FORMAT = "dpnorm ledger"
VERSION = 1
_NEEDED = "needed is a file that Ledger.save wrote"


@dataclass(frozen=True)
class Release:
    """One of the Gaussians that a step releases together.

    Attributes:
        name: what is released.
        noise_multiplier: standard deviation of its noise in units of `clip`.
        clip: by how much one record moves it at most; None where that was moved from step to step
            by what was released before.
    """

    name: str
    noise_multiplier: float
    clip: float | None


@dataclass(frozen=True)
class Event:
    """Equal steps in a row.

    Attributes:
        noise_multiplier: of all that a step releases together, which is what is accounted.
        sampling_rate: probability of a record to be in a batch.
        steps: how many.
        releases: what each of them released.
        run: the name of the run that they belong to.

    Raises:
        InputError: numbers that no step can have.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    releases: tuple[Release, ...] = ()
    run: str = ""

    def __post_init__(self) -> None:
        numbers = self.noise_multiplier, self.sampling_rate, self.steps
        sound = all(map(_is_number, numbers)) and isinstance(self.steps, int)
        if not (sound and self.noise_multiplier >= 0 and 0 < self.sampling_rate <= 1 <= self.steps):
            raise InputError(
                f"steps have noise multiplier {self.noise_multiplier!r}, sampling rate "
                f"{self.sampling_rate!r} and number {self.steps!r}: needed are a finite noise of "
                "at least 0, a rate above 0 and at most 1, and a whole number of at least 1"
            )

    @property
    def entry(self) -> tuple[float, float, int]:
        """(noise multiplier, sampling rate, steps), as accountants take it."""
        return self.noise_multiplier, self.sampling_rate, self.steps


@dataclass
class Ledger:
    """All releases of one data set, over all runs that used it.

    Runs on the same records add up: give each new engine the ledger of the earlier ones, and its
    statement says what they spent together.

    Attributes:
        events: in the order in which they happened.
    """

    events: list[Event] = field(default_factory=list)
    _taken: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def book(
        self,
        noise_multiplier: float,
        sampling_rate: float,
        releases: tuple[Release, ...] = (),
        *,
        run: str = "",
        steps: int = 1,
    ) -> None:
        """Adds steps; equal ones in a row are one event."""
        last = self.events[-1] if self.events else None
        event = Event(float(noise_multiplier), float(sampling_rate), steps, releases, run)
        if last is not None and _alike(last, event):
            self.events[-1] = Event(*last.entry[:2], last.steps + steps, releases, run)
        else:
            self.events.append(event)

    def history(self, run: str | None = None) -> list[tuple[float, float, int]]:
        """What accountants take, of one run or of all."""
        found: list[tuple[float, float, int]] = []
        for event in self.events:
            if run is not None and event.run != run:
                continue
            noise, rate, steps = event.entry
            if found and found[-1][:2] == (noise, rate):
                steps += found.pop()[2]
            found.append((noise, rate, steps))
        return found

    def of(self, run: str) -> list[Event]:
        """The events of one run."""
        return [event for event in self.events if event.run == run]

    def runs(self) -> list[str]:
        """The names of the runs, in the order in which they began."""
        return list(dict.fromkeys(event.run for event in self.events))

    def take_name(self, run: str | None = None, *, kind: str = "run") -> str:
        """A name for a new run, which no other run has or gets.

        Args:
            run: the name; default the first that is free of "run 1", "run 2", ...; of another
                kind: "moments", "moments 2", ...
            kind: the first word of the default.

        Raises:
            InputError: another run has this name, or it is no text.
        """
        taken = {*self.runs(), *self._taken}
        if run is None:
            numbered = (f"{kind} {n}" for n in itertools.count(1 if kind == "run" else 2))
            names = numbered if kind == "run" else itertools.chain([kind], numbered)
            run = next(name for name in names if name not in taken)
        if not isinstance(run, str) or not run:
            raise InputError(f"the name of a run is {run!r}: it is to be a text, such as 'run 1'")
        if run in taken:
            raise InputError(
                f"another run of this ledger has the name {run!r} already: take another name"
            )
        self._taken.append(run)
        return run

    def to_dict(self) -> dict[str, Any]:
        """The ledger as plain data."""
        events = [asdict(event) | {"releases": _plain(event.releases)} for event in self.events]
        return {"format": FORMAT, "version": VERSION, "events": events}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """A ledger from plain data.

        Raises:
            InputError: it is none, or holds numbers that no release can have.
        """
        try:
            if data["format"] != FORMAT or data["version"] > VERSION:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            return cls([_event(event) for event in data["events"]])
        except KeyError as error:
            raise InputError(f"this is no ledger that can be read: it lacks {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"this is no ledger that can be read: {error}") from None

    def save(self, path: str | Path) -> None:
        """Writes the ledger as JSON."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a ledger.

        Raises:
            InputError: there is no such file, or it holds no ledger.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot read {str(path)!r}: {reason}; {_NEEDED}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{str(path)!r} is no JSON ({error}): {_NEEDED}") from None
        try:
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"{str(path)!r}: {error}; {_NEEDED}") from None


def _alike(a: Event, b: Event) -> bool:
    return a.entry[:2] == b.entry[:2] and (a.releases, a.run) == (b.releases, b.run)


def _plain(releases: Iterable[Release]) -> list[dict[str, Any]]:
    return [asdict(release) for release in releases]


def _event(data: Mapping[str, Any]) -> Event:
    return Event(
        data["noise_multiplier"],
        data["sampling_rate"],
        data["steps"],
        tuple(_release(release) for release in data["releases"]),
        _text(data["run"]),
    )


def _release(data: Mapping[str, Any]) -> Release:
    noise, clip = data["noise_multiplier"], data["clip"]
    if not (_is_number(noise) and noise >= 0):
        raise ValueError(f"a release has noise multiplier {noise!r}")
    if not (clip is None or (_is_number(clip) and clip > 0)):
        raise ValueError(f"a release has clipping norm {clip!r}")
    return Release(_text(data["name"]), noise, clip)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r}, which is no text")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
