"""The report as one HTML file: styles and plots inside, no script, no request to any network."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from dpnorm.benchmark.exports import json_text
from dpnorm.benchmark.figure import INK, RULE, Look, look
from dpnorm.benchmark.plots import Plot, plots
from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.benchmark.tables import (
    Column,
    Section,
    columns,
    epsilon_text,
    one_line,
    plus_minus,
    reading,
    refusals,
    sections,
    subtitle,
    why_refused,
)

MARKS = {"proven": "✓", "refuted": "✗", "unproven": "?"}


def to_html(result: BenchmarkResult) -> str:
    """Writes report.html: self-contained, for light and dark screens, phones and paper."""
    looks = {row.variant: look(row.variant) for row in result.rows}
    return Template(_resource("report.html")).substitute(
        name=_words(result.name),
        subtitle=_words(subtitle(result)),
        css=_css(looks.values()),
        best="\n".join(_best(section) for section in sections(result)),
        table=_table(result),
        reading=_items(reading(result)),
        refused=_list("Refused", refusals(result)),
        plots=_plots(plots(result), looks.values()),
        notes=_list("Notes", result.notes),
        command=escape(result.command),
        suite=escape(json_text(result.suite)),
        versions=_plain_table((), [(name, text) for name, text in result.versions.items()]),
        timings=_timings(result),
    )


def _resource(name: str) -> str:
    return (files("dpnorm.benchmark") / name).read_text(encoding="utf-8")


def _words(text: str) -> str:
    return escape(one_line(text))


def _css(looks: Iterable[Look]) -> str:
    """Gives each variant's colour a value for light and one for dark pages."""
    used = dict.fromkeys(looks)
    return Template(_resource("report.css")).substitute(
        light=" ".join(f"--{one.light[1:]}: {one.light};" for one in used),
        dark=" ".join(f"--{one.light[1:]}: {one.dark};" for one in used),
    )


def _themed(svg: str, looks: Iterable[Look]) -> str:
    """Replaces a plot's fixed colours by those of the page."""
    colours = {INK: "currentColor", RULE: "var(--rule)"}
    colours |= {one.light: f"var(--{one.light[1:]})" for one in looks}
    pattern = "|".join(re.escape(colour) for colour in colours)
    return re.sub(rf"(?:{pattern})(?=[;\"])", lambda match: colours[match[0]], svg)


def _best(section: Section) -> str:
    """A card: the arm of highest mean accuracy, and what leaks from it."""
    measured = [(row.accuracy.value, row) for row in section.rows if row.accuracy is not None]
    if not measured:
        return ""
    row = max(measured, key=lambda pair: pair[0])[1]
    auc = f"<br>LiRA AUC {plus_minus(row.auc['lira'], 1, 3)}" if "lira" in row.auc else ""
    return (
        f'<div class="card"><div class="arm">{escape(section.arm)}<br>{escape(section.subject)}'
        f'</div><div class="figure">{plus_minus(row.accuracy)}<small> %</small></div>'
        f'<div class="who">highest mean accuracy: <b>{_words(row.variant)}</b>{auc}</div></div>'
    )


def _table(result: BenchmarkResult) -> str:
    shown = columns(result)
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.heading)}</th>' for column in shown
    )
    bodies = "\n".join(
        f'<tbody>\n<tr class="section"><th colspan="{len(shown)}" scope="rowgroup">'
        f"<span>{escape(section.arm)} · {escape(section.subject)}</span></th></tr>\n"
        + "\n".join(_row(row, shown) for row in section.rows)
        + "\n</tbody>"
        for section in sections(result)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n{bodies}\n</table>"


def _class(column: Column) -> str:
    if column.key == "variant":
        return ' class="sticky"'
    return ' class="words"' if column.key == "verdict" else ""


def _row(row: Row, shown: Sequence[Column]) -> str:
    swatch = (
        f'<span class="swatch" style="background: var(--{look(row.variant).light[1:]})"></span>'
    )
    verdict = escape(row.verdict if row.verdict in MARKS else "unproven")
    cells = []
    for i, column in enumerate(shown):
        text = escape(column.text(row))
        if column.key == "variant":
            cells.append(f'<th scope="row" class="sticky">{swatch}{text}</th>')
        elif column.key == "verdict":
            mark = MARKS.get(row.verdict, "?")
            cells.append(
                f'<td class="words"><span class="badge {verdict}">{mark} {text}</span></td>'
            )
        elif column.key == "accuracy" and row.status == "refused":
            cells.append(f'<td><span class="badge refused">{text}</span></td>')
        elif row.status == "refused" and i and shown[i - 1].key == "epsilon":
            cells.append(
                f'<td class="why" colspan="{len(shown) - i}">{escape(why_refused(row))}</td>'
            )
            break
        else:
            cells.append(f"<td>{_ranged(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _ranged(text: str) -> str:
    value, sign, rest = text.partition(" [") if " [" in text else text.partition(" ± ")
    return f'{value}<span class="range">{sign}{rest}</span>' if sign else text


def _plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_words(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{_words(first)}</th>'
        + "".join(f"<td>{_words(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    )


def _plots(drawn: dict[str, Plot], looks: Iterable[Look]) -> str:
    looks = tuple(looks)
    figures = "\n".join(
        f'<figure class="card" id="plot-{key}"><figcaption>{escape(plot.title)}</figcaption>\n'
        + _themed(plot.svg, looks).replace(
            "<svg ", f'<svg role="img" aria-label="{escape(plot.alt)}" ', 1
        )
        + f'\n<details><summary>This plot in words and numbers</summary><p class="alt">'
        f'{escape(plot.alt)}</p><div class="scroll">{_plain_table(plot.header, plot.data)}</div>'
        "</details></figure>"
        for key, plot in drawn.items()
    )
    return f'<h2>Plots</h2>\n<div class="plots">\n{figures}\n</div>' if drawn else ""


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"<li>{_words(line)}</li>" for line in lines)


def _list(title: str, lines: Sequence[str]) -> str:
    return f"<h2>{title}</h2>\n<ul>\n{_items(lines)}\n</ul>" if lines else ""


def _timings(result: BenchmarkResult) -> str:
    rows = [
        (t.variant, epsilon_text(t.target_epsilon, None), f"{t.training:.1f}", f"{t.attacks:.1f}")
        for t in result.timings
    ]
    table = _plain_table(("variant", "target ε", "training (s)", "attacks (s)"), rows)
    title = "<h2>Time, in seconds of one core</h2>"
    return f'{title}\n<div class="card scroll">{table}</div>' if rows else ""
