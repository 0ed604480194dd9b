"""An answer as text for a terminal, as Markdown, and as an HTML page. Markdown makes the others."""

import io
from collections.abc import Callable, Iterator, Mapping
from html import escape

from dpnorm.explain.explanation import Explanation

Plots = Mapping[str, str]

_WIDTH = 80
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{
  font: 1rem/1.55 system-ui, sans-serif;
  max-width: 44rem; margin: 2rem auto; padding: 0 1rem;
}}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #8886; padding: .35rem .6rem; text-align: left; }}
img {{ max-width: 100%; background: #fff; }}
code {{ font-size: .92em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def to_markdown(answer: Explanation, plots: Plots) -> str:
    """The answer as one Markdown document."""
    parts = [f"# {answer.question}"]
    for heading, text in _parts(answer, plots):
        parts += [f"## {heading}"] * bool(heading) + [text]
    return "\n\n".join(parts) + "\n"


def to_text(answer: Explanation, plots: Plots) -> str:
    """The answer for a terminal of 80 columns, without colours."""
    from rich.console import Console
    from rich.markdown import Markdown

    file = io.StringIO()
    console = Console(file=file, width=_WIDTH, color_system=None, force_terminal=False)
    print(answer.question, "=" * len(answer.question), sep="\n", file=file)
    for heading, text in _parts(answer, {}):
        print(f"\n{heading}\n{'-' * len(heading)}" if heading else "", file=file)
        console.print(Markdown(text))
    if plots:
        print("\nPlots\n-----", *plots.values(), sep="\n", file=file)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def to_html(answer: Explanation, plots: Plots) -> str:
    """The answer as one page, which makes no request but for its pictures."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(to_markdown(answer, plots))
    return _PAGE.format(title=escape(answer.question), body=body.strip())


FORMS: dict[str, Callable[[Explanation, Plots], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "html": to_html,
}


def _parts(answer: Explanation, plots: Plots) -> Iterator[tuple[str, str]]:
    """Headings and texts in order; the first has no heading."""
    yield "", answer.argument
    *told, sources = answer.parts.items()
    yield from told
    pictures = [
        f"![{picture.alt}]({plots[picture.key]})"
        for picture in answer.measured.pictures
        if picture.key in plots
    ]
    if pictures:
        yield "Plots", "\n\n".join(pictures)
    yield "Checked by this run", _checked(answer)
    yield sources
    versions = ", ".join(f"{name} {version}" for name, version in answer.versions.items())
    yield "How it was made", f"`dpnorm why {answer.topic}` with {versions}."


def _checked(answer: Explanation) -> str:
    lines = [f"- {'yes' if c.holds else '**NO**'}: {c.text}" for c in answer.measured.claims]
    if not answer.holds:
        lines.append("\n**This run does not show what the text says.**")
    return "\n".join(lines)
