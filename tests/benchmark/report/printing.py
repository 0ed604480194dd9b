"""The benchmark's table as a terminal or a pipe gets it."""

import io

from rich.console import Console

from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.terminal import render_terminal


def printed(
    result: BenchmarkResult, width: int = 80, encoding: str = "utf-8", *, tty: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    colours = "standard" if tty else "auto"
    console = Console(file=file, width=width, force_terminal=tty, color_system=colours, _environ={})
    console.print(render_terminal(result))
    file.flush()
    return raw.getvalue().decode(encoding)
