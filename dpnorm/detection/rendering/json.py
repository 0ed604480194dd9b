"""Reports as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from dpnorm.detection.rendering.view import View, json_number


def as_json(views: Sequence[View]) -> str:
    """An object for one report, a list for several; an infinite witness is the string "inf"."""
    data = [_plain(view) for view in views]
    return json.dumps(data[0] if len(data) == 1 else data, indent=2, allow_nan=False)


def _plain(view: View) -> dict[str, Any]:
    data = view.report.to_dict()
    data["findings"] = [
        {
            "code": item.code,
            "path": item.path,
            "module": item.module,
            "location": item.location,
            "message": item.message,
            "witness": json_number(item.witness),
            "remedy": item.remedy,
        }
        for item in view.findings
    ]
    return {"target": view.target, **data, "hidden": view.hidden} if view.target else data
