"""A speed run for a terminal of 80 columns, as Markdown, and as JSON."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dpnorm.benchmark.speed.result import SpeedResult
from dpnorm.benchmark.speed.words import (
    Column,
    curve_columns,
    missing,
    notes,
    reading,
    row_columns,
    title,
    where,
)
from dpnorm.benchmark.tables import DASH
from dpnorm.benchmark.terminal import ASCII
from dpnorm.errors import unknown_name
from dpnorm.text import one_line

_WIDTH = 80


def render(result: SpeedResult, format: str = "table") -> str:
    """The result as text: "table", "json" or "markdown".

    Raises:
        InputError: another format.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    return FORMATS[format](result)


def terminal(result: SpeedResult) -> RenderableType:
    """Returns a rich renderable: print it with `rich.console.Console().print`."""
    return _Terminal(result)


def _sections(result: SpeedResult, *, brief: bool) -> Iterator[tuple[str, list[Column]]]:
    """The headings and tables, in reading order."""
    for network, described in result.subjects.items():
        rows = [row for row in result.rows if row.network == network]
        if rows:
            yield one_line(described), row_columns(rows, brief=brief)
    for curve in result.curves:
        if curve.numerator:
            yield f"growth against {curve.name}: {curve.subject}", curve_columns(curve)


def _lists(result: SpeedResult) -> Iterator[tuple[str, Sequence[str]]]:
    """What stands below the tables."""
    broken = tuple(
        f"growth against {c.name}: {one_line(c.reason)}" for c in result.curves if c.reason
    )
    for heading, lines in (
        ("Not measured", (*missing(result.rows), *broken)),
        ("Notes", notes(result.rows)),
        ("How to read it", reading(result)),
        ("Where", (where(result),)),
    ):
        if lines:
            yield heading, lines


@dataclass(frozen=True)
class _Terminal:
    result: SpeedResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        def text(words: str, style: str = "") -> Text:
            if options.ascii_only:
                words = words.translate(ASCII).encode("ascii", "backslashreplace").decode()
            return Text(words, style)

        yield text(title(self.result), "bold")
        for heading, columns in _sections(self.result, brief=True):
            yield text("")
            yield text(f"── {heading}", "cyan")
            yield _table(columns, text)
        for heading, lines in _lists(self.result):
            yield text("")
            yield text(heading, "bold")
            yield from (Padding(text(line), (0, 0, 0, 2), expand=False) for line in lines)


def _table(columns: Sequence[Column], text: Callable[[str, str], Text]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        width = max(cell_len(cell) for cell in (column.heading, *column.cells))
        table.add_column(width=width, justify="left" if column.words else "right", overflow="fold")
    table.add_row(*(text(column.heading, "bold") for column in columns))
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(text(cell, "dim" if cell == DASH else "") for cell in cells))
    return table


def _plain(result: SpeedResult) -> str:
    """The terminal's table without colours."""
    out = io.StringIO()
    Console(file=out, width=_WIDTH, color_system=None, highlight=False).print(terminal(result))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _markdown(result: SpeedResult) -> str:
    lines = [f"# {title(result)}"]
    for heading, columns in _sections(result, brief=False):
        lines += ["", f"## {_safe(heading)}", ""]
        lines.append(_line(column.heading for column in columns))
        lines.append("|" + "|".join("---" if c.words else "---:" for c in columns) + "|")
        lines += [_line(cells) for cells in zip(*(c.cells for c in columns), strict=True)]
    for heading, items in _lists(result):
        lines += ["", f"## {heading}", "", *(f"- {_safe(item)}" for item in items)]
    return "\n".join(lines) + "\n"


def _line(cells: "Iterator[str] | Sequence[str]") -> str:
    return "| " + " | ".join(map(_safe, cells)) + " |"


def _safe(words: str) -> str:
    """Text that Markdown does not read as a table or as HTML."""
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


FORMATS: dict[str, Callable[[SpeedResult], str]] = {
    "table": _plain,
    "json": SpeedResult.to_json,
    "markdown": _markdown,
}
