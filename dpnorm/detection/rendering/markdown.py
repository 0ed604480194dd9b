"""Reports as Markdown, for a pull request or a notebook."""

from collections.abc import Sequence

from dpnorm.detection.rendering.view import View


def markdown(views: Sequence[View]) -> str:
    """A line with the verdict and a table of the findings for each report."""
    return "\n\n".join(_one(view) for view in views)


def _one(view: View) -> str:
    name, _, verdict = view.headline.partition(f": {view.report.verdict}")
    lines = [f"**{name}**: {view.report.verdict}{verdict}", ""]
    if view.findings:
        lines += ["| code | layer | what was seen | what to do |", "|---|---|---|---|"]
        lines += [
            f"| {f.code} | `{f.path or '(model)'}` {f.module} | {_cell(f.message)} "
            f"| {_cell(f.remedy)} |"
            for f in view.findings
        ]
        lines.append("")
    return "\n".join([*lines, view.note]).rstrip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
