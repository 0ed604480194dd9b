"""Progress on stderr: a live bar on a terminal, plain lines elsewhere.

Imported where a command runs, and not before: rich takes its time.
"""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


def progress_display(things: str = "cells") -> "PlainLines | LiveBar":
    """The display of a suite's cells, or of other things that are trained, that fits stderr."""
    return LiveBar() if sys.stderr.isatty() else PlainLines(things)


class Pace:
    """How much is done, and how long the rest takes at the mean speed so far.

    Args:
        total: how much there is to do.
        done: how much was done before.
        prepares: the time of the first holds a preparation, and counts only until the second is
            done.
    """

    def __init__(self, total: int = 0, done: int = 0, *, prepares: bool = False) -> None:
        self.total, self.done, self._before, self._prepares = total, done, done, prepares
        self._began = self._since = self._reached = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def reach(self, done: int) -> None:
        """So much is done now; at the first call, all but one of it was done before."""
        if self.done == self._before:
            self._before = done - 1
        elif self._prepares:
            self._before, self._since, self._prepares = self.done, self._reached, False
        self.done, self._reached = done, time.monotonic()

    def left(self) -> str:
        """The time that is left, in words; empty where it is not known, or there is none."""
        if self.done == self._before or self.done >= self.total:
            return ""
        each = (self._reached - self._since) / (self.done - self._before)
        seconds = round(each * (self.total - self.done) - (time.monotonic() - self._reached))
        if seconds < 100:
            return f"{max(seconds, 1)} s left"
        minutes = round(seconds / 60)
        return f"{minutes} min left" if minutes < 100 else f"{minutes / 60:.1f} h left"


class Messages:
    """Lines on stderr."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """There is nothing to put away."""


class PlainLines(Messages):
    """One line for each tenth of the cells.

    Args:
        things: what they are called.
    """

    def __init__(self, things: str = "cells") -> None:
        self._pace, self._things = Pace(), things

    def begin(self, total: int, finished: int) -> None:
        self._pace = Pace(total, finished)
        self.say(f"{total} {self._things}, {finished} of them finished before")

    def finished(self, description: str, seconds: float) -> None:
        pace = self._pace
        pace.reach(pace.done + 1)
        if pace.done % max(1, pace.total // 10) == 0 or pace.done == pace.total:
            done = f"{pace.done}/{pace.total} {self._things}"
            self.say(f"{done} after {pace.elapsed:.0f} s: {description}")


class LiveBar:
    """A bar with what was done last and the time left.

    Args:
        unit: of what is counted, before the count.
        preparing: what is said before the first is done, where that takes longer than the others.
    """

    def __init__(self, unit: str = "", preparing: str = "") -> None:
        self._console = Console(stderr=True, highlight=False)
        self._unit, self._preparing = unit, preparing
        self._pace = Pace()
        self._bar: Progress | None = None

    def begin(self, total: int, finished: int) -> None:
        self._pace = Pace(total, finished, prepares=bool(self._preparing))
        columns = [
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            _TimeLeft(self._pace),
        ]
        if self._unit:
            columns.insert(1, TextColumn(self._unit))
        self._bar = Progress(*columns, console=self._console)
        self._bar.add_task(self._preparing, total=total, completed=finished)
        self._bar.start()

    def finished(self, description: str, seconds: float) -> None:
        self.reached(self._pace.done + 1, description)

    def reached(self, done: int, description: str) -> None:
        """So much is done now."""
        self._pace.reach(done)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=description)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _TimeLeft(ProgressColumn):
    """The time left as `Pace` knows it."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(self._pace.left())
