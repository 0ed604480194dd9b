"""Ctrl-C and SIGTERM while a command works: it is asked to stop, and stops where it can go on."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether somebody has asked the command to stop, and how.

    Attributes:
        signal: the first one that came; None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """As a shell gives it for a process that a signal ended."""
        return 128 + (self.signal or 0)


@contextlib.contextmanager
def stop_requests(*, quiet: bool = False) -> Iterator[StopRequest]:
    """Turns Ctrl-C and SIGTERM into requests inside; a second Ctrl-C is a KeyboardInterrupt.

    Args:
        quiet: say nothing on stderr.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not (request() or quiet):
            # past all buffers, which the interrupted code may be writing to at this moment
            os.write(2, b"\nstopping after this step; Ctrl-C ends at once\n")
        request.signal = request.signal or number

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, note)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
