"""The report as Markdown, for a pull request or a chat."""

import re
from collections.abc import Iterable, Sequence

from dpnorm.benchmark.exports import json_text
from dpnorm.benchmark.results import BenchmarkResult
from dpnorm.benchmark.tables import (
    columns,
    epsilon_text,
    one_line,
    reading,
    refusals,
    sections,
    subtitle,
)


def to_markdown(result: BenchmarkResult) -> str:
    """Writes report.md: a table for each dataset, model and epsilon, and how to read them."""
    shown = columns(result)
    parts = [f"# {_words(result.name)}", _words(subtitle(result)), "## Results"]
    for section in sections(result):
        parts += [
            f"### {_words(f'{section.subject}: {section.arm}')}",
            _table([c.title for c in shown], [[c.text(r) for c in shown] for r in section.rows]),
        ]
    parts.append(_items(reading(result)))
    for title, lines in (("Refused", refusals(result)), ("Notes", result.notes)):
        if lines:
            parts += [f"## {title}", _items(lines)]
    parts += ["## How to make it again", _fenced(result.command, "sh")]
    parts += ["## Configuration", _fenced(json_text(result.suite), "json")]
    parts += ["## Versions", _items(f"{name} {text}" for name, text in result.versions.items())]
    if result.timings:
        rows = [
            [t.dataset, t.model, t.variant, epsilon_text(t.target_epsilon, None)]
            + [f"{seconds:.1f}" for seconds in (t.training, t.attacks)]
            for t in result.timings
        ]
        header = ("dataset", "model", "variant", "target ε", "training (s)", "attacks (s)")
        parts += ["## Time, in seconds of one core", _table(header, rows)]
    return "\n\n".join(parts) + "\n"


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
