"""One line a finding, for grep."""

from collections.abc import Sequence

from dpnorm.detection.rendering.view import View


def concise(views: Sequence[View]) -> str:
    """A line for each finding and one for each verdict; with several targets each line is named."""
    lines = []
    for view in views:
        prefix = f"{view.target or view.report.model}: " if len(views) > 1 else ""
        lines += [
            f"{prefix}{item.path or '(model)'}: {item.code} {item.module}: {item.message}"
            for item in view.findings
        ]
        lines += [view.headline, *filter(None, [view.note])]
    return "\n".join(lines)
