"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


def progress_display() -> "PlainLines | LiveBar":
    """The display that fits stderr."""
    return LiveBar() if sys.stderr.isatty() else PlainLines()


class PlainLines:
    """One line for each tenth of the cells."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._started = time.monotonic()

    def begin(self, total: int, finished: int) -> None:
        self._total, self._done = total, finished
        self._started = time.monotonic()
        self.say(f"training: {total} cells, {finished} of them finished before")

    def finished(self, description: str, seconds: float) -> None:
        self._done += 1
        step = max(1, self._total // 10)
        if self._done % step == 0 or self._done == self._total:
            elapsed = time.monotonic() - self._started
            self.say(f"{self._done}/{self._total} cells after {elapsed:.0f} s: {description}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        pass


class LiveBar:
    """A bar with the last cell and the time left."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def begin(self, total: int, finished: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=total, completed=finished)
        self._bar.start()

    def finished(self, description: str, seconds: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, description=description)

    def say(self, text: str) -> None:
        self._console.print(text)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
