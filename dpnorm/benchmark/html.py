"""The report as one HTML file: styles, script and plots inside, no request to any network."""

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from dpnorm.benchmark.exports import json_text
from dpnorm.benchmark.plots import plots
from dpnorm.benchmark.report_html import (
    block,
    details,
    figure,
    items,
    listing_table,
    pairs_table,
    results_table,
    scroll,
    words,
)
from dpnorm.benchmark.report_listings import (
    audits,
    costs,
    findings,
    findings_of,
    judged,
    verdicts,
)
from dpnorm.benchmark.report_series import Arm, Plot, palette
from dpnorm.benchmark.report_words import (
    exceeded_lines,
    gaps,
    reading,
    seeds_text,
    statements,
    subtitle,
    void_lines,
)
from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.benchmark.tables import Section, attack_label, attacks, plus_minus, sections
from dpnorm.figures import Look

PARTS = {
    "accuracy": "Accuracy against epsilon",
    "leakage": "Leakage against accuracy",
    "roc": "ROC curves",
    "memorization": "Memorization",
    "norms": "Gradient norms",
    "audits": "Audited bounds against claims",
    "cost": "Cost",
}


def to_html(result: BenchmarkResult) -> str:
    """Writes report.html: self-contained, for light and dark screens, phones and paper.

    Its content security policy forbids every request and every script but its own. Without a
    script all is there to read; with it, tables sort and filter.
    """
    looks = palette([row.variant for row in result.rows])
    script = _resource("report.js")
    parts = [part for part in _parts(result, looks) if part[2]]
    return Template(_resource("report.html")).substitute(
        name=words(result.name),
        subtitle=words(subtitle(result)),
        description=f"<p>{words(result.description)}</p>" if result.description else "",
        css=_css(looks.values()),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        contents="\n".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in parts),
        alerts=_alerts(result),
        parts="\n".join(
            f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n{body}\n</section>'
            for key, title, body in parts
        ),
    )


def _resource(name: str) -> str:
    return (files("dpnorm.benchmark") / name).read_text(encoding="utf-8")


def _css(looks: Iterable[Look]) -> str:
    """Gives each variant's colour a value for light and one for dark pages."""
    used = dict.fromkeys(looks)
    return Template(_resource("report.css")).substitute(
        light=" ".join(f"--{one.light[1:]}: {one.light};" for one in used),
        dark=" ".join(f"--{one.light[1:]}: {one.dark};" for one in used),
    )


def _alerts(result: BenchmarkResult) -> str:
    alerts = (
        ("An audited bound is above its claim", exceeded_lines(result)),
        ("Void epsilons", void_lines(result)),
    )
    return "\n".join(
        f'<aside class="alert" aria-label="{title}"><h2>{title}</h2>\n<ul>\n{items(lines)}\n</ul>'
        "</aside>"
        for title, lines in alerts
        if lines
    )


def _parts(result: BenchmarkResult, looks: Mapping[str, Look]) -> Iterator[tuple[str, str, str]]:
    """The parts of the page: key, title and content; an empty one is left out."""
    yield "results", "Accuracy, privacy and leakage", _results(result, looks)
    yield "verdicts", "Verdicts", _verdicts(result, looks)
    drawn = tuple(plots(result).values())
    tables = {
        "audits": listing_table(rows, looks) if (rows := audits(result)).rows else "",
        "cost": listing_table(rows, looks) if (rows := costs(result)).rows else "",
    }
    for key, title in PARTS.items():
        figures = _figures([plot for plot in drawn if plot.part == key], looks.values())
        table = tables.get(key, "")
        yield key, title, "\n".join(filter(None, (figures, scroll(table, title) if table else "")))
    told = [details(heading, block(text)) for heading, text in statements(result)]
    yield "statements", "Privacy statements", "\n".join(told)
    yield "notes", "Notes", f"<ul>\n{items(result.notes)}\n</ul>" if result.notes else ""
    yield "again", "How to make it again", _again(result)


def _results(result: BenchmarkResult, looks: Mapping[str, Look]) -> str:
    cards = "\n".join(_best(section) for section in sections(result, by_seed=False))
    table = scroll(results_table(result, looks), "Results")
    return (
        f'<div class="best">\n{cards}\n</div>\n{table}\n'
        f'<ul class="legend">\n{items(reading(result))}\n</ul>'
    )


def _best(section: Section) -> str:
    """A card: the arm of highest mean accuracy that is not void, and what leaks from it."""
    groups: dict[str, list[Row]] = {}
    for row in section.rows:
        if row.accuracy is not None and not row.void:
            groups.setdefault(row.variant, []).append(row)
    arms = [Arm(name, section.target_epsilon, tuple(rows)) for name, rows in groups.items()]
    measured = [(arm.over_seeds(lambda row: row.accuracy), arm) for arm in arms]
    if not measured:
        return ""
    accuracy, best = max(measured, key=lambda pair: pair[0].value if pair[0] else -math.inf)
    attack = next(iter(attacks(best.rows)), "")
    auc = best.over_seeds(lambda row: row.auc.get(attack))
    leak = "" if auc is None else f"<br>{words(attack_label(attack))} AUC {plus_minus(auc, 1, 3)}"
    return (
        f'<div class="card"><div class="arm">{escape(section.arm)}<br>{escape(section.subject)}'
        f'</div><div class="figure">{plus_minus(accuracy)}<small> %</small></div>'
        f'<div class="who">highest mean accuracy: <b>{words(best.variant)}</b>{leak}</div></div>'
    )


def _verdicts(result: BenchmarkResult, looks: Mapping[str, Look]) -> str:
    if not result.rows:
        return ""
    parts = [scroll(listing_table(verdicts(result), looks), "Verdicts")]
    for rows in judged(result):
        count = len(findings_of(rows))
        if count:
            name = f"{rows[0].variant}, {rows[0].model} on {rows[0].dataset}"
            summary = f"{count} finding{'s' * (count > 1)} in {name}"
            parts.append(details(summary, scroll(listing_table(findings(rows)), summary)))
    for title, lines in gaps(result).items():
        parts.append(f"<h3>{title}</h3>\n<ul>\n{items(lines)}\n</ul>")
    parts += [
        details(f"What {row.variant} said when it {_ENDED[row.status]}", block(row.reason))
        for row in result.rows
        if row.status in _ENDED and "\n" in row.reason
    ]
    return "\n".join(parts)


_ENDED = {"failed": "failed", "incomplete": "was left incomplete"}


def _figures(drawn: Sequence[Plot], looks: Iterable[Look]) -> str:
    looks = tuple(looks)
    figures = "\n".join(figure(plot, looks) for plot in drawn)
    return f'<div class="plots">\n{figures}\n</div>' if drawn else ""


def _again(result: BenchmarkResult) -> str:
    facts = {"seeds": seeds_text(result), "machine": result.machine, **result.versions}
    known = [(name, text) for name, text in facts.items() if text]
    return (
        f'<div class="card">{block(result.command)}</div>\n<div class="pair">\n<div>\n'
        f'<h3>Configuration, as it was run</h3>\n<div class="card">{block(json_text(result.suite))}'
        "</div>\n</div>\n<div>\n<h3>Versions, seeds and machine</h3>\n"
        f'<div class="card scroll">{pairs_table(known)}</div>\n</div>\n</div>'
    )
