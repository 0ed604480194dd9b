"""Workflow commands of GitHub Actions."""

from collections.abc import Sequence

from dpnorm.detection.rendering.view import View


def github(views: Sequence[View]) -> str:
    """An error for each finding with a witness, a warning for each other; then the verdict."""
    lines = []
    for view in views:
        prefix = f"{view.target or view.report.model}: " if len(views) > 1 else ""
        for item in view.findings:
            level = "error" if item.witness is not None else "warning"
            message = f"{prefix}{item.path or '(model)'}: {item.message}. {item.remedy}"
            escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
            lines.append(f"::{level} title={item.code} {item.module}::{escaped}")
        lines += [view.headline, *filter(None, [view.note])]
    return "\n".join(lines)
