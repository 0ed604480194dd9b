"""Reports as text: for people, for terminals without colour, and for machines."""

import json
from collections.abc import Callable

from dpnorm.detection.report import Report
from dpnorm.errors import unknown_name

WIDTH = 80


def render(report: Report, form: str) -> str:
    """The report in one of the forms of `FORMS`."""
    if form not in FORMS:
        raise unknown_name("format", form, FORMS)
    return FORMS[form](report)


def _table(report: Report) -> str:
    import io

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("code", "layer", "what was seen"):
        table.add_column(name, overflow="fold")
    for item in report.findings:
        where = f"{item.path or '(model)'}\n{item.module}"
        place = f" ({item.location})" if item.location else ""
        table.add_row(item.code, where, f"{item.message}{place}\n-> {item.remedy}")
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH, highlight=False, color_system=None)
    console.print(f"{report.model}: {report.summary()}")
    if report.findings:
        console.print()
        console.print(table)
        console.print()
    console.print(f"loss: {report.loss}; opacus: {report.opacus}; seed {report.seed}")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _concise(report: Report) -> str:
    lines = [
        f"{item.path or '(model)'}: {item.code} {item.module}: {item.message}"
        for item in report.findings
    ]
    return "\n".join([*lines, f"{report.model}: {report.summary()}"])


def _json(report: Report) -> str:
    return json.dumps(report.to_dict(), indent=2)


def _markdown(report: Report) -> str:
    lines = [f"**{report.model}**: {report.summary()}", ""]
    if report.findings:
        lines += ["| code | layer | what was seen | what to do |", "|---|---|---|---|"]
        lines += [
            f"| {f.code} | `{f.path or '(model)'}` {f.module} | {f.message} | {f.remedy} |"
            for f in report.findings
        ]
    return "\n".join(lines).rstrip()


def _github(report: Report) -> str:
    """Workflow commands of GitHub Actions, one a finding."""
    lines = []
    for item in report.findings:
        level = "error" if item.witness is not None else "warning"
        message = f"{item.path or '(model)'}: {item.message}. {item.remedy}"
        escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        lines.append(f"::{level} title={item.code} {item.module}::{escaped}")
    return "\n".join([*lines, f"{report.model}: {report.summary()}"])


FORMS: dict[str, Callable[[Report], str]] = {
    "table": _table,
    "concise": _concise,
    "json": _json,
    "markdown": _markdown,
    "github": _github,
}
