"""The benchmark's table for a terminal of 80 columns or more; plain text where there is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dpnorm.benchmark.report_words import (
    NOT_TRAINED,
    exceeded_lines,
    gaps,
    reading,
    subtitle,
    void_lines,
)
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.tables import DASH, VOID, Column, Section, attacks, columns, sections
from dpnorm.text import one_line

STYLES = {"proven": "green", "refuted": "red", "unproven": "yellow", VOID: "bold red", DASH: "dim"}
STYLES |= dict.fromkeys(NOT_TRAINED, "red")
NAME = 10  # columns to which the variants may be folded where nothing else helps
ASCII = str.maketrans(
    {
        "ε": "eps",
        "∞": "inf",
        "±": "+-",
        DASH: "-",
        "δ": "delta",
        "×": "x",
        "·": "-",
        "─": "-",
        "≥": ">=",
    }
)


def render_terminal(result: BenchmarkResult) -> RenderableType:
    """Returns a rich renderable: print it with `rich.console.Console().print`.

    One block of rows for each dataset, model, epsilon and seed, then what is void, why arms were
    not trained, how to read the numbers and the run's notes. The console drops the colours where it
    is not a terminal, and letters outside ASCII are spelled out where the output cannot hold them.
    """
    return _Terminal(result)


@dataclass(frozen=True)
class _Terminal:
    result: BenchmarkResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        return _blocks(self.result, options.max_width, ascii_only=options.ascii_only)


def _blocks(result: BenchmarkResult, width: int, *, ascii_only: bool) -> Iterator[RenderableType]:
    def text(words: str, style: str = "") -> Text:
        if ascii_only:
            words = words.translate(ASCII).encode("ascii", "backslashreplace").decode()
        return Text(words, style)

    parts = sections(result)
    shown = _shown(result)
    cells = [[[text(c.brief(row)) for c in shown] for row in part.rows] for part in parts]
    headings = [text(column.heading, "bold") for column in shown]
    widths = _widths(headings, [row for block in cells for row in block])
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
    excess = sum(widths) + len(widths) - 1 - width
    widths[0] = max(min(widths[0], NAME), widths[0] - max(0, excess))
    for row in (row for block in cells for row in block):
        row[0] = text("\n".join(wrap(row[0].plain, widths[0])))  # at hyphens where there are any

    yield text(f"{one_line(result.name)}: {subtitle(result)}", "bold")
    yield text("")
    head = _table(shown, widths, gap)
    head.add_row(*headings)
    yield head
    for part, rows in zip(parts, cells, strict=True):
        yield text(_heading(part, parts), "cyan")
        table = _table(shown, widths, gap)
        for row in rows:
            for cell in row:
                cell.stylize(STYLES.get(cell.plain, ""))
            table.add_row(*row)
        yield table
    told = {
        "An audited bound is above its claim": exceeded_lines(result),
        "Void epsilons": void_lines(result),
        **gaps(result),
        "How to read it": reading(result),
        "Notes": tuple(one_line(note) for note in result.notes),
    }
    for title, lines in told.items():
        if lines:
            yield text("")
            yield text(title, "bold")
            yield from (Padding(text(line), (0, 0, 0, 2), expand=False) for line in lines)


def _shown(result: BenchmarkResult) -> list[Column]:
    """The columns that fit 80 characters: of the attacks, the strongest that was run."""
    lead = attacks(result.rows)[:1]
    keys = {"variant", "verdict", "accuracy", "epsilon", "memorized"}
    keys |= {f"{attack}_{measure}" for attack in lead for measure in ("auc", "tpr")}
    return [column for column in columns(result) if column.key in keys]


def _widths(headings: list[Text], rows: list[list[Text]]) -> list[int]:
    lines = [
        [line for row in (headings, *rows) for line in row[i].plain.split("\n")]
        for i in range(len(headings))
    ]
    return [max(cell_len(line) for line in column) for column in lines]


def _table(shown: list[Column], widths: list[int], gap: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, gap, 0, 0), pad_edge=False)
    for column, width in zip(shown, widths, strict=True):
        name = column.key == "variant"
        left = name or column.key == "verdict"
        table.add_column(
            width=width, justify="left" if left else "right", overflow="fold", no_wrap=not name
        )
    return table


def _heading(part: Section, parts: tuple[Section, ...]) -> str:
    several = len({(p.dataset, p.model) for p in parts}) > 1
    return f"── {part.subject + ', ' if several else ''}{part.arm}"
