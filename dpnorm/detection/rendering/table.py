"""The table: findings of one code together, at most 80 columns wide, coloured on a terminal."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dpnorm.detection.rendering.compact import compact
from dpnorm.detection.rendering.view import View
from dpnorm.detection.report import Finding, Verdict
from dpnorm.detection.rules import rule

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 80
_VERDICT_COLOURS = {
    Verdict.PROVEN: "bold green",
    Verdict.REFUTED: "bold red",
    Verdict.UNPROVEN: "bold yellow",
}


def table(views: Sequence[View]) -> str:
    """The reports in plain text, 80 columns wide."""
    from rich.console import Console

    buffer = io.StringIO()
    _print(views, Console(file=buffer, width=WIDTH, highlight=False, color_system=None))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def colour_table(views: Sequence[View]) -> None:
    """Prints the reports on a terminal, in its colours and width, up to 100 columns."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, 100)
    _print(views, console)


def _print(views: Sequence[View], console: "Console") -> None:
    for index, view in enumerate(views):
        if index:
            console.print()
        for line in _report(view):
            console.print(line)


def _report(view: View) -> Iterator["RenderableType"]:
    from rich.text import Text

    report = view.report
    name, _, rest = view.headline.partition(f": {report.verdict}")
    colour = _VERDICT_COLOURS[report.verdict]
    yield Text.assemble((name, "bold"), ": ", (str(report.verdict), colour), rest)
    for code in sorted({item.code for item in view.findings}, key=lambda c: _gravity(view, c)):
        yield ""
        yield from _code(code, [item for item in view.findings if item.code == code])
    yield ""
    if view.note:
        yield Text(view.note, "yellow")
    yield Text(f"loss: {report.loss}; opacus: {report.opacus}; seed {report.seed}", "dim")


def _gravity(view: View, code: str) -> tuple[int, str]:
    """Findings with a witness come first, then what is undecided, then warnings."""
    if any(item.code == code and item.witness is not None for item in view.findings):
        return 0, code
    return (2 if code.startswith(("DPN4", "DPN5")) else 1), code


def _code(code: str, items: list[Finding]) -> Iterator["RenderableType"]:
    """The findings of one code: title, each message with its layers, what to do."""
    witnessed = any(item.witness is not None for item in items)
    colour = "bold red" if witnessed else "bold yellow"
    yield _row((code, colour), (rule(code).title, "bold"))
    seen: dict[str, list[Finding]] = {}
    for item in items:
        seen.setdefault(_pattern(item), []).append(item)
    for pattern, same in seen.items():
        yield _row(("", ""), (pattern.replace(_NUMBER, _span(same)), ""))
        layers: dict[tuple[str, str], list[Finding]] = {}
        for item in same:
            layers.setdefault((item.module, item.location), []).append(item)
        for (module, location), group in layers.items():
            count = f"{len(group)} " if len(group) > 1 else ""
            place = f" ({location})" if location else ""
            paths = ", ".join(compact(item.path or "(model)" for item in group))
            yield _row(("", ""), (f"{count}{module}{place}: ", "dim"), (paths, "cyan"), hang=2)
    for remedy in dict.fromkeys(item.remedy for item in items):
        yield _row(("    ->", "green"), (remedy, "green"))


_NUMBER = "\0"


def _pattern(item: Finding) -> str:
    """The message with a mark where the witness stands, so that messages can be compared."""
    message = " ".join(item.message.split())
    if item.witness is None:
        return message
    number = f" {item.witness:.3g} "
    if number in f"{message} ":
        return f"{message} ".replace(number, f" {_NUMBER} ", 1).rstrip(" ")
    return f"{message} (witness {_NUMBER})"


def _span(items: list[Finding]) -> str:
    """The witnesses of findings: a number, or the least and the greatest."""
    witnesses = [item.witness for item in items if item.witness is not None]
    if not witnesses:
        return ""
    low, high = f"{min(witnesses):.3g}", f"{max(witnesses):.3g}"
    return low if low == high else f"{low} to {high}"


def _row(head: tuple[str, str], *body: tuple[str, str], hang: int = 0) -> "RenderableType":
    """A line with the code at its left; what does not fit goes on below the text."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(width=6)
    grid.add_column(overflow="fold")
    text = Text.assemble(*body)
    grid.add_row(Text(*head), Padding(text, (0, 0, 0, hang)) if hang else text)
    return grid
