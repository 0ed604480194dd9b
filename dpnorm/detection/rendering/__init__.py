"""Reports as text, one format a file: for people, for terminals without colour, for machines."""

from collections.abc import Callable, Sequence

from dpnorm.detection.rendering.concise import concise
from dpnorm.detection.rendering.github import github
from dpnorm.detection.rendering.json import as_json
from dpnorm.detection.rendering.markdown import markdown
from dpnorm.detection.rendering.sarif import sarif
from dpnorm.detection.rendering.table import WIDTH, colour_table, table
from dpnorm.detection.rendering.view import View, parse_codes, view_of
from dpnorm.detection.report import Report
from dpnorm.errors import unknown_name

FORMS: dict[str, Callable[[Sequence[View]], str]] = {
    "table": table,
    "concise": concise,
    "json": as_json,
    "sarif": sarif,
    "markdown": markdown,
    "github": github,
}


def render(report: Report, form: str) -> str:
    """The report in one of the forms of `FORMS`."""
    return render_all([view_of(report)], form)


def render_all(views: Sequence[View], form: str) -> str:
    """Several reports in one of the forms of `FORMS`."""
    if form not in FORMS:
        raise unknown_name("format", form, FORMS)
    return FORMS[form](views)


__all__ = [
    "FORMS",
    "WIDTH",
    "View",
    "colour_table",
    "parse_codes",
    "render",
    "render_all",
    "view_of",
]
