"""SARIF output against the JSON schema of SARIF 2.1.0, and against what dpnorm means to write.

The schema beside this file is the one that Microsoft's sarif-sdk (MIT licence) ships in its npm
package sarif-multitool-linux 5.7.0, as sarif-2.1.0.json. The models below are stricter: they hold
the properties that dpnorm writes and refuse any other; the number of the section in the text of the
OASIS Standard stands beside each.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pytest
import torch
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from dpnorm.detection import check, rule
from dpnorm.detection.rendering import render_all, view_of
from dpnorm.detection.report import Finding, Report, Verdict

SCHEMA = Draft202012Validator(
    json.loads(Path(__file__).with_name("sarif-2.1.0.json").read_text()),
    format_checker=Draft202012Validator.FORMAT_CHECKER,
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Message(Strict):  # 3.11 message, 3.12 multiformatMessageString
    text: str = Field(min_length=1)
    markdown: str | None = None


class Rule(Strict):  # 3.49 reportingDescriptor
    id: str
    name: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$")
    shortDescription: Message  # noqa: N815
    fullDescription: Message  # noqa: N815
    help: Message


class Driver(Strict):  # 3.19 toolComponent
    name: Literal["dpnorm"]
    version: str
    semanticVersion: str = Field(pattern=r"^\d+\.\d+\.\d+")  # noqa: N815
    rules: list[Rule]


class Tool(Strict):  # 3.18
    driver: Driver


class Artifact(Strict):  # 3.4 artifactLocation: a valid URI reference
    uri: str = Field(pattern=r"^[A-Za-z0-9._~/%-]+$")


class Region(Strict):  # 3.30
    startLine: int = Field(ge=1)  # noqa: N815


class PhysicalLocation(Strict):  # 3.29
    artifactLocation: Artifact  # noqa: N815
    region: Region


class LogicalLocation(Strict):  # 3.33
    name: str = Field(min_length=1)
    fullyQualifiedName: str = Field(min_length=1)  # noqa: N815
    kind: Literal["module"]


class Location(Strict):  # 3.28
    logicalLocations: list[LogicalLocation] = Field(min_length=1)  # noqa: N815
    physicalLocation: PhysicalLocation | None = None  # noqa: N815


class Result(Strict):  # 3.27
    ruleId: str  # noqa: N815
    ruleIndex: int = Field(ge=0)  # noqa: N815
    level: Literal["none", "note", "warning", "error"]
    message: Message
    locations: list[Location]
    properties: dict[str, Any]  # 3.8 property bag


class Run(Strict):  # 3.14
    tool: Tool
    results: list[Result]
    properties: dict[str, Any]


class Log(Strict):  # 3.13 sarifLog
    schema_: str = Field(alias="$schema", pattern=r"^https://.*2\.1\.0\.json$")
    version: Literal["2.1.0"]
    runs: list[Run]


def parse(text: str) -> Run:
    """The only run of a log that keeps the specification, and the rules that join its parts."""
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    SCHEMA.validate(strict)
    (run,) = Log.model_validate(strict).runs
    ids = [entry.id for entry in run.tool.driver.rules]
    assert len(set(ids)) == len(ids)  # 3.19.23
    for result in run.results:
        assert ids[result.ruleIndex] == result.ruleId  # 3.27.6
    return run


def made(*findings: Finding) -> Report:
    return Report(Verdict.REFUTED, findings, (), "no", "Net", "not judged", 0)


def found(code: str, path: str = "a.b", location: str = "", witness: float | None = None):
    return Finding(code, path, "Linear", location, "something was seen", witness, "do it")


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval())
    return check(model, torch.randn(4, 1, 6, 6))


def test_the_schema_refuses_what_sarif_does_not_know(report):
    log = json.loads(report.render("sarif"))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not SCHEMA.is_valid(log)


def test_every_finding_is_one_result_with_its_witness(report):
    run = parse(report.render("sarif"))
    assert [r.ruleId for r in run.results] == [f.code for f in report.findings]
    assert [r.properties["witness"] for r in run.results] == [f.witness for f in report.findings]
    paths = [r.locations[0].logicalLocations[0].fullyQualifiedName for r in run.results]
    assert paths == [f.path for f in report.findings]


def test_each_rule_that_was_found_carries_its_whole_page(report):
    entries = parse(report.render("sarif")).tool.driver.rules
    assert {entry.id for entry in entries} == {f.code for f in report.findings}
    for entry in entries:
        assert entry.help.markdown == rule(entry.id).page()
        assert entry.fullDescription.text == rule(entry.id).why


@pytest.mark.parametrize(
    ("item", "level"),
    [
        (found("DPN101", witness=0.5), "error"),
        (found("DPN401"), "warning"),
        (found("DPN501"), "warning"),
        (found("DPN901"), "warning"),
    ],
)
def test_only_a_witness_makes_an_error_and_nothing_undecided_is_a_mere_note(item, level):
    (result,) = parse(made(item).render("sarif")).results
    assert result.level == level


@pytest.mark.parametrize(
    ("location", "known"),
    [
        ("net.py:41", ("net.py", 41)),
        ("my net é.py:1", ("my net é.py", 1)),
        ("", None),
        ("net.py", None),
        ("net.py:0", None),
        ("<string>:x", None),
    ],
)
def test_a_physical_location_stands_only_where_file_and_line_are_known(location, known):
    (result,) = parse(made(found("DPN102", location=location)).render("sarif")).results
    place = result.locations[0].physicalLocation
    if known is None:
        assert place is None
    else:
        assert (unquote(place.artifactLocation.uri), place.region.startLine) == known


def test_the_model_itself_is_named_by_its_class():
    (result,) = parse(made(found("DPN104", path="")).render("sarif")).results
    assert result.locations[0].logicalLocations[0].fullyQualifiedName == "Net"


@pytest.mark.parametrize("form", ["json", "sarif"])
@pytest.mark.parametrize("witness", [float("inf"), float("nan")])
def test_an_infinite_witness_is_still_valid_json(form, witness):
    text = made(found("DPN101", witness=witness)).render(form)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert re.search(f'"witness": "{witness}"', text)


def test_a_report_without_findings_is_a_valid_log():
    run = parse(Report(Verdict.PROVEN, (), (), "ready", "Net", "not judged", 0).render("sarif"))
    assert (run.results, run.tool.driver.rules) == ([], [])
    assert run.properties["reports"][0]["verdict"] == "proven"


def test_several_reports_are_one_run_that_says_whose_each_result_is():
    views = [view_of(made(found("DPN101")), target="a"), view_of(made(found("DPN401")), target="b")]
    run = parse(render_all(views, "sarif"))
    assert [(r.ruleId, r.properties["target"]) for r in run.results] == [
        ("DPN101", "a"),
        ("DPN401", "b"),
    ]
    assert [r["target"] for r in run.properties["reports"]] == ["a", "b"]
