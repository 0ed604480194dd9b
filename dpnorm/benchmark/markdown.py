"""The report as Markdown, for a pull request or a chat."""

import re
from collections.abc import Iterable, Mapping, Sequence

from dpnorm.benchmark.exports import json_text
from dpnorm.benchmark.report_listings import Listing, audits, costs, verdicts
from dpnorm.benchmark.report_words import (
    exceeded_lines,
    gaps,
    reading,
    seeds_text,
    statements,
    subtitle,
    void_lines,
)
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.tables import columns, sections
from dpnorm.text import one_line


def to_markdown(result: BenchmarkResult) -> str:
    """Writes report.md: a table for each dataset, model, epsilon and seed, and how to read them."""
    shown = columns(result)
    parts = [f"# {_words(result.name)}", _words(result.description), _words(subtitle(result))]
    parts += _lists({"An audited bound is above its claim": exceeded_lines(result)})
    parts += _lists({"Void epsilons": void_lines(result)})
    parts.append("## Results")
    for section in sections(result):
        parts += [
            f"### {_words(f'{section.subject}: {section.arm}')}",
            _table([c.title for c in shown], [[c.text(r) for c in shown] for r in section.rows]),
        ]
    parts.append(_items(reading(result)))
    for title, listing in (
        ("Verdicts", verdicts(result)),
        ("Audited bounds against claims", audits(result)),
    ):
        parts += _listing(title, listing)
    parts += _lists({**gaps(result), "Notes": result.notes})
    told = [f"#### {_words(name)}\n\n{_fenced(text, 'text')}" for name, text in statements(result)]
    parts += ["## Privacy statements", *told] if told else []
    parts += ["## How to make it again", _fenced(result.command, "sh")]
    parts += ["## Configuration", _fenced(json_text(result.suite), "json")]
    facts = {**result.versions, "seeds": seeds_text(result), "machine": result.machine}
    parts += ["## Versions, seeds and machine"]
    parts.append(_items(f"{name} {text}" for name, text in facts.items() if text))
    parts += _listing("Cost", costs(result))
    return "\n\n".join(filter(None, parts)) + "\n"


def _lists(lists: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"## {title}\n\n{_items(lines)}" for title, lines in lists.items() if lines]


def _listing(title: str, listing: Listing) -> list[str]:
    rows = [[cell.text for cell in row] for row in listing.rows]
    return [f"## {title}", _table(listing.header, rows)] if rows else []


def _words(text: str) -> str:
    r"""Escapes what Markdown or HTML would read as markup.

    >>> print(_words("a|b <i> *c* [d](e) 0.5 [0.4, 0.6]"))
    a\|b &lt;i&gt; \*c\* [d\](e) 0.5 [0.4, 0.6]
    """
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|#~$]|\](?=[(\[:]))", r"\\\1", text)


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_words(line)}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(c if c == '---' else _words(c) for c in line)} |" for line in lines
    )


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
