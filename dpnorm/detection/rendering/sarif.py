"""SARIF 2.1.0, the exchange format of static analysis results (OASIS Standard, 2020)."""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from dpnorm.detection.rendering.view import View, json_number
from dpnorm.detection.report import Finding
from dpnorm.detection.rules import rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(views: Sequence[View]) -> str:
    """One run with the results of all reports; it lists the rules that were found.

    A finding with a witness is an error; any other is a warning. An undecided one (DPN9xx) is no
    mere note, because without a proof the check fails. Rules have no helpUri, which SARIF wants
    absolute: their whole page is in `help`. The modes, verdicts and seeds stand in the properties
    of the run.
    """
    from dpnorm import __version__

    codes = sorted({item.code for view in views for item in view.findings})
    driver = {
        "name": "dpnorm",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(code) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "results": [
            _result(view, item, codes.index(item.code)) for view in views for item in view.findings
        ],
        "properties": {"reports": [_summary(view) for view in views]},
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False)


def _rule(code: str) -> dict[str, Any]:
    entry = rule(code)
    words = re.findall(r"[A-Za-z0-9]+", entry.title)
    return {
        "id": code,
        "name": "".join(word[0].upper() + word[1:] for word in words),
        "shortDescription": {"text": f"{entry.title[0].upper()}{entry.title[1:]}."},
        "fullDescription": {"text": entry.why},
        "help": {
            "text": f"{entry.remedy}\n\nExample:\n{entry.example}\n\nSource: {entry.source}",
            "markdown": entry.page(),
        },
    }


def _result(view: View, item: Finding, index: int) -> dict[str, Any]:
    model = view.target or view.report.model
    return {
        "ruleId": item.code,
        "ruleIndex": index,
        "level": "error" if item.witness is not None else "warning",
        "message": {"text": f"{item.path or model} ({item.module}): {item.message}. {item.remedy}"},
        "locations": [_location(item, view.report.model)],
        "properties": {
            "target": model,
            "module": item.module,
            "witness": json_number(item.witness),
            "remedy": item.remedy,
        },
    }


def _location(item: Finding, model: str) -> dict[str, Any]:
    """The module in the model and, where they are known, the file and the line of its code."""
    name = item.path or model
    module = {
        "name": name.rpartition(".")[2],
        "fullyQualifiedName": name,
        "kind": "module",
    }
    location: dict[str, Any] = {"logicalLocations": [module]}
    file, _, line = item.location.rpartition(":")
    if file and line.isdecimal() and int(line) > 0:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": quote(file)},
            "region": {"startLine": int(line)},
        }
    return location


def _summary(view: View) -> dict[str, Any]:
    report = view.report
    return {
        "target": view.target or report.model,
        "model": report.model,
        "verdict": str(report.verdict),
        "summary": report.summary(),
        "opacus": report.opacus,
        "loss": report.loss,
        "seed": report.seed,
        "hidden": view.hidden,
    }
