"""Pages that are made from the code: rules, topics, commands, and the reference.

The topics of `dpnorm why` run while the pages are built, so that text and numbers are those of this
code; DPNORM_DOCS_TOPICS=0 leaves them out, for whoever edits another page.
"""

import importlib
import inspect
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_PACKAGES = {
    "leakage": "dpnorm.leakage",
    "privacy": "dpnorm.privacy",
    "norms": "dpnorm.norms",
    "data": "dpnorm.data",
    "models": "dpnorm.models",
    "benchmark": "dpnorm.benchmark",
    "explain": "dpnorm.explain",
}


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that are made."""
    pages = {**dict(_rules()), **dict(_reference()), "reference/cli.md": _commands()}
    for path, content in {**pages, **dict(_topics())}.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_config(config: Any) -> Any:
    """Puts the pages that are made behind the index page of their section."""
    from dpnorm.detection.rules import rules
    from dpnorm.explain import topics

    made = {
        "Why": ("why", [*topics()]),
        "Rules": ("rules", [*rules()]),
        "Reference": ("reference", [*_PACKAGES]),
    }
    for entry in config.nav:
        ((title, content),) = entry.items()
        if title in made:
            folder, names = made[title]
            first = [content] if isinstance(content, str) else content
            titles = {name: _PACKAGES.get(name, name) for name in names}
            entry[title] = [*first, *({titles[n]: f"{folder}/{n}.md"} for n in names)]
    return config


def _rules() -> Iterator[tuple[str, str]]:
    from dpnorm.detection.rules import rules

    lines = ["# Rules", "", "What `dpnorm check` finds has a code, and each code a page.", ""]
    lines += ["| code | finding |", "|---|---|"]
    for code, rule in rules().items():
        lines.append(f"| [{code}]({code}.md) | {rule.title} |")
        yield f"rules/{code}.md", rule.page() + f"\n`dpnorm rule {code}` prints this page.\n"
    yield "rules/index.md", "\n".join(lines) + "\n"


def _topics() -> Iterator[tuple[str, str | bytes]]:
    from dpnorm.explain import answer, topics

    run = os.environ.get("DPNORM_DOCS_TOPICS", "1") != "0"
    lines = [
        "# Why",
        "",
        "Questions that people ask, each answered by an experiment. The pages were made by running "
        "it; `dpnorm why TOPIC` runs it on your machine.",
        "",
    ]
    for topic, question in topics().items():
        lines.append(f"- [{question}]({topic}.md)")
        if not run:
            yield f"why/{topic}.md", f"# {question}\n\n`dpnorm why {topic}` runs it.\n"
            continue
        found = answer(topic)
        if not found.holds:
            raise SystemExit(f"dpnorm why {topic} does not show what its text says")
        with tempfile.TemporaryDirectory() as folder:
            saved = found.save_plots(folder)
            names = {key: Path(path).name for key, path in saved.items()}
            for path in saved.values():
                yield f"why/{Path(path).name}", Path(path).read_bytes()
        made = f"\nMade by `dpnorm why {topic}`.\n"
        yield f"why/{topic}.md", found.render("markdown", plots=names) + made
    yield "why/index.md", "\n".join(lines) + "\n"


def _reference() -> Iterator[tuple[str, str]]:
    import dpnorm

    lines = ["# Python", "", "What `import dpnorm` gives.", ""]
    for name in dpnorm.__all__:
        entry = _entry(getattr(dpnorm, name), name)
        if entry is not None:
            lines += [entry, ""]
    lines += ["## Packages", ""]
    for name, path in _PACKAGES.items():
        module = importlib.import_module(path)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        lines.append(f"- [`{path}`]({name}.md): {summary}")
        entries = [
            entry
            for each in module.__all__
            if (entry := _entry(getattr(module, each), each)) is not None
        ]
        body = "\n\n".join([f"# {path}", (module.__doc__ or "").strip(), *entries])
        yield f"reference/{name}.md", body + "\n"
    yield "reference/index.md", "\n".join(lines) + "\n"


def _entry(found: Any, name: str) -> str | None:
    """What mkdocstrings is to write of a class or a function; None for another kind of thing."""
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return None
    return f"::: {found.__module__}.{found.__qualname__}"


def _commands() -> str:
    import click
    import typer

    from dpnorm.cli.main import app

    lines = ["# Command line", ""]

    def add(command: Any, path: str, parent: Any = None) -> None:
        context = click.Context(command, info_name=path, parent=parent, max_content_width=78)
        context.terminal_width = 78
        lines.extend([f"## {path}", "", "```text", command.get_help(context).strip(), "```", ""])
        for name, inner in getattr(command, "commands", {}).items():
            add(inner, f"{path} {name}")

    add(typer.main.get_command(app), "dpnorm")
    return "\n".join(lines)
