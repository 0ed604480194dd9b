"""The pieces of report.html: tables, figures, lists."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote

from dpnorm.benchmark.exports import Scalar, csv_text
from dpnorm.benchmark.report_listings import Cell, Listing
from dpnorm.benchmark.report_series import Grid, Plot
from dpnorm.benchmark.report_words import why_missing
from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.benchmark.tables import (
    DASH,
    VOID,
    Column,
    Value,
    flat_columns,
    is_trained,
    number_text,
    sections,
)
from dpnorm.figures import INK, RULE, Look
from dpnorm.leakage.plots.bounds import VIOLATION
from dpnorm.text import one_line

MARKS = {"proven": "✓", "refuted": "✗", "unproven": "?"}
_STICKY, _WORDS = ' class="sticky"', ' class="words"'
_BADGES = {VOID, "exceeded", "refused", "failed", "incomplete"}


def words(text: str) -> str:
    """Text from elsewhere on one line, as HTML."""
    return escape(one_line(text))


def items(lines: Iterable[str]) -> str:
    """The items of a list."""
    return "\n".join(f"<li>{words(line)}</li>" for line in lines)


def scroll(table: str, label: str) -> str:
    """A table in a box that scrolls by itself, by keyboard too."""
    return (
        f'<div class="card scroll" role="region" aria-label="{words(label)}" tabindex="0">\n'
        f"{table}\n</div>"
    )


def colour(look: Look) -> str:
    """The CSS variable that holds the colour of a look on the page's ground."""
    return f"--{look.light[1:]}"


def _key(value: Value | bool) -> str:
    """What the script sorts by; empty for what is missing, which stands last."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ' data-v=""'
    if isinstance(value, float | int):
        infinite = math.isinf(value)
        return f' data-v="{"-" * (value < 0)}Infinity"' if infinite else f' data-v="{value!r}"'
    return ""


def results_table(result: BenchmarkResult, looks: Mapping[str, Look]) -> str:
    """All rows in one table, by section; rows without numbers say why instead."""
    shown = flat_columns(result)
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.heading)}</th>' for column in shown
    )
    parts = sections(result, by_seed=False)
    lines = [
        _row(row, shown, looks[row.variant], first=not i and part is not parts[0])
        for part in parts
        for i, row in enumerate(part.rows)
    ]
    body = "\n".join(lines)
    return (
        f'<table class="data" data-choose><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _class(column: Column) -> str:
    if column.key == "variant":
        return _STICKY
    return _WORDS if column.key in ("verdict", "dataset", "model") else ""


def _row(row: Row, shown: Sequence[Column], look: Look, *, first: bool) -> str:
    cells = []
    for i, column in enumerate(shown):
        text, key = column.text(row), _key(column.value(row))
        if column.key == "variant":
            swatch = f'<span class="swatch" style="background: var({colour(look)})"></span>'
            cells.append(f'<th scope="row"{_STICKY}>{swatch}{escape(text)}</th>')
        elif column.key == "accuracy" and not is_trained(row):
            cells.append(f'<td data-v="">{_badge(text)}</td>')
        elif not is_trained(row) and shown[i - 1].key == "epsilon":
            why = escape(why_missing(row))
            cells.append(f'<td class="why" data-v="" colspan="{len(shown) - i}">{why}</td>')
            break
        elif text in _BADGES or column.key == "verdict":
            cells.append(f"<td{_class(column)}{key}>{_badge(text)}</td>")
        else:
            cells.append(f"<td{_class(column)}{key}>{_ranged(escape(text))}</td>")
    start = '<tr class="group">' if first else "<tr>"
    return f"{start}{''.join(cells)}</tr>"


def _badge(text: str) -> str:
    known = text if text in MARKS or text in _BADGES else "unproven"
    mark = f"{MARKS[text]} " if text in MARKS else ""
    return f'<span class="badge {known}">{mark}{escape(text)}</span>'


def _ranged(text: str) -> str:
    value, sign, rest = text.partition(" [") if " [" in text else text.partition(" ± ")
    return f'{value}<span class="range">{sign}{rest}</span>' if sign else text


def listing_table(listing: Listing, looks: Mapping[str, Look] | None = None) -> str:
    """A listing as a table that sorts; with looks, its first column is a variant."""
    worded = [
        any(isinstance(cell.value, str) for cell in cells)
        for cells in zip(*listing.rows, strict=True)
    ]
    kinds = [_STICKY if looks and not i else _WORDS if w else "" for i, w in enumerate(worded)]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(kinds, listing.header, strict=True)
    )
    lines = []
    for first, *rest in listing.rows:
        look = (looks or {}).get(str(first.value))
        style = "" if look is None else f' style="background: var({colour(look)})"'
        swatch = f'<span class="swatch"{style}></span>' if style else ""
        cells = "".join(_cell(cell, kind) for cell, kind in zip(rest, kinds[1:], strict=True))
        name = f'<th scope="row"{kinds[0]}>{swatch}{escape(first.text)}</th>'
        lines.append(f"<tr>{name}{cells}</tr>")
    body = "\n".join(lines)
    return f'<table class="data"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def _cell(cell: Cell, kind: str) -> str:
    badge = cell.text in MARKS or cell.text in _BADGES
    text = _badge(cell.text) if badge else _ranged(escape(cell.text))
    return f"<td{kind}{_key(cell.value)}>{text}</td>"


def grid_listing(grid: Grid) -> Listing:
    """The numbers of a plot as a listing, at four significant digits."""
    header = tuple(name.replace("_", " ") for name in grid.header)
    return Listing(header, tuple(tuple(map(_grid_cell, row)) for row in grid.rows))


def _grid_cell(value: Scalar) -> Cell:
    if value is None:
        return Cell(DASH)
    if isinstance(value, str):
        return Cell(one_line(value), one_line(value))
    if isinstance(value, bool):
        return Cell("yes" if value else "no", int(value))
    short = number_text(value) if math.isinf(value) else f"{value:.4g}"
    return Cell(short, value)


def pairs_table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    body = "".join(
        f'<tr><th scope="row">{words(name)}</th><td class="words">{words(text)}</td></tr>'
        for name, text in rows
    )
    return f'<table class="pairs"><tbody>{body}</tbody></table>'


def figure(plot: Plot, looks: Iterable[Look]) -> str:
    """A plot with its words, its numbers and its data to download."""
    alt, title = words(plot.alt), words(plot.title)
    label = f'<svg role="img" aria-label="{title}. {alt}" '
    svg = _themed(plot.svg, looks).replace("<svg ", label, 1)
    data = quote(csv_text(plot.data.header, plot.data.rows))
    table = scroll(listing_table(grid_listing(plot.brief)), f"Numbers of {plot.title}")
    return (
        f'<figure class="card" id="plot-{plot.key}"><h3>{title}</h3>\n{svg}\n'
        f"<figcaption>{alt}</figcaption>\n"
        f"<details><summary>In numbers</summary>{table}</details>\n"
        f'<a class="data" download="{plot.key}.csv" href="data:text/csv;charset=utf-8,{data}">'
        f"Data as CSV</a></figure>"
    )


def _themed(svg: str, looks: Iterable[Look]) -> str:
    """Replaces a plot's fixed colours by those of the page."""
    colours = {INK: "currentColor", RULE: "var(--rule)", VIOLATION: "var(--bad)"}
    colours |= {"#ffffff": "var(--card)"}
    colours |= {one.light: f"var({colour(one)})" for one in looks}
    pattern = "|".join(re.escape(one) for one in colours)
    return re.sub(rf"(?:{pattern})(?=[;\"])", lambda match: colours[match[0]], svg)


def details(summary: str, body: str) -> str:
    """A fold that opens in print."""
    return f'<details class="paper"><summary>{words(summary)}</summary>\n{body}\n</details>'


def block(text: str) -> str:
    """Text of several lines, as it is; control characters as escapes."""
    lines = "\n".join(map(one_line, text.splitlines()))
    return f'<pre tabindex="0"><code>{escape(lines)}</code></pre>'
