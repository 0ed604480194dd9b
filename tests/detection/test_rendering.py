import json

import pytest
import torch
from torch import nn

from dpnorm.detection import check, rule, rules
from dpnorm.detection.rendering import FORMS, WIDTH
from dpnorm.errors import InputError


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval())
    return check(model, torch.randn(4, 1, 6, 6))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_names_every_finding(report, form):
    text = report.render(form)
    assert "DPN101" in text
    assert "DPN401" in text
    assert "refuted" in text


def test_the_table_fits_eighty_columns(report):
    assert max(len(line) for line in report.render("table").splitlines()) <= WIDTH


def test_json_holds_the_numbers_of_the_report(report):
    data = json.loads(report.render("json"))
    assert data["verdict"] == "refuted"
    assert data["ok"] is False
    assert data["findings"][0]["witness"] == report.findings[0].witness


def test_github_marks_witnesses_as_errors_and_warnings_as_warnings(report):
    lines = report.render("github").splitlines()
    assert lines[0].startswith("::error title=DPN101")
    assert lines[1].startswith("::warning title=DPN401")


def test_an_unknown_form_names_the_nearest(report):
    with pytest.raises(InputError, match="did you mean 'json'"):
        report.render("jsn")


@pytest.mark.parametrize("code", rules())
def test_every_rule_has_a_whole_page(code):
    page = rule(code).page()
    assert page.startswith(f"# {code}: ")
    for section in ("## Example", "## What to do", "## Source"):
        assert section in page
    compile(rule(code).example, code, "exec")


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="unknown rule 'DPN11': allowed are DPN101"):
        rule("DPN11")
