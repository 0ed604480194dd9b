"""`dpnorm check` with filters, explanations, formats and several targets."""

import json
import sys

import pytest
from typer.testing import CliRunner

from dpnorm.cli.main import app, main
from dpnorm.errors import InputError

SMALL = ("--input", "4,1,8,8")
REFUTED = ("check", "lenet", *SMALL)


def run(*arguments: str):
    result = CliRunner().invoke(app, [*arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("option", [("--select", "DPN5"), ("--ignore", "DPN1"), ("--ignore", "D")])
@pytest.mark.parametrize("form", ["table", "concise", "markdown", "github"])
def test_hiding_the_guilty_findings_changes_neither_verdict_nor_exit_code(option, form):
    result = run(*REFUTED, *option, "--format", form)
    assert result.exit_code == 1
    assert "refuted: 2 places" in result.stdout
    assert "2 findings are not shown" in result.stdout
    assert "normalizes with" not in result.stdout


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        (("--select", "dpn401, DPN505"), {"DPN401", "DPN505"}),
        (("--select", "DPN4"), {"DPN401"}),
        (("--ignore", "DPN4"), {"DPN505"}),
        (("--select", "DPN", "--ignore", "DPN505"), {"DPN401"}),
    ],
)
def test_select_and_ignore_take_codes_and_prefixes(option, shown):
    result = run(*REFUTED, "--eval", "--format", "json", *option)
    report = json.loads(result.stdout)
    assert {item["code"] for item in report["findings"]} == shown
    assert (result.exit_code, report["verdict"]) == (0, "proven")
    assert len(report["findings"]) + report["hidden"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--select", "DPN11"), ["unknown code in --select 'DPN11'", "did you mean 'DPN101'"]),
        (("--ignore", "DPN1,E5"), ["unknown code in --ignore 'E5'"]),
        (("--select", " , "), ["--select is ' , '", "--select DPN101,DPN5"]),
        (("--explain", "--format", "json"), ["--explain goes with --format table or markdown"]),
    ],
)
def test_a_wrong_option_is_refused_before_a_model_is_built(arguments, words):
    with pytest.raises(InputError) as raised:
        run("check", "no.such:model", *SMALL, *arguments)
    for word in words:
        assert word in str(raised.value)


def test_explain_prints_the_page_of_each_shown_rule_once():
    text = run(*REFUTED, "--eval", "--ignore", "DPN505", "--explain").stdout
    assert text.count("# DPN401: ") == 1
    assert "# DPN505" not in text
    assert "model.bn1.eval()" in text
    assert max(map(len, text.splitlines())) <= 80


def test_several_targets_are_a_list_in_json_and_one_is_an_object():
    several = json.loads(run("check", "lenet", "resnet8", *SMALL, "--format", "json").stdout)
    assert [report["target"] for report in several] == ["lenet", "resnet8"]
    one = json.loads(run(*REFUTED, "--format", "json").stdout)
    assert one == several[0]


def test_several_targets_are_one_run_in_sarif():
    log = json.loads(run("check", "lenet", "resnet8", *SMALL, "--format", "sarif").stdout)
    (only,) = log["runs"]
    assert [result["properties"]["target"] for result in only["results"]] == (
        ["lenet"] * 2 + ["resnet8"] * 9
    )


def test_the_exit_code_of_several_targets_is_the_worst(tmp_path, monkeypatch):
    (tmp_path / "safe_models.py").write_text(
        "from torch import nn\ndef linear(**options):\n    return nn.Linear(8, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    safe = "safe_models:linear"
    assert run("check", safe, safe, *SMALL).exit_code == 0
    assert run("check", safe, "lenet", *SMALL).exit_code == 1
    result = run("check", "lenet", "nope", safe, *SMALL)
    assert result.exit_code == 2
    assert "dpnorm: nope: unknown model 'nope'" in result.stderr
    assert "lenet (Sequential): refuted" in result.stdout
    assert "safe_models:linear (Linear): proven" in result.stdout


def test_concise_and_github_lines_name_the_target_among_several():
    for form, start in (("concise", "resnet8: bn: DPN101"), ("github", "::error title=DPN101")):
        lines = run("check", "lenet", "resnet8", *SMALL, "--format", form).stdout.splitlines()
        assert any(line.startswith(start) and "resnet8: bn: " in line for line in lines)


def test_a_terminal_gets_colour_and_a_pipe_does_not(monkeypatch, capsys):
    def printed(terminal: bool) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, "argv", ["dpnorm", *REFUTED])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in printed(False)
    assert "\x1b[1;31mrefuted" in printed(True)


def test_the_help_fits_eighty_columns_and_says_that_filters_do_not_judge(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("check", "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    for option in ("--select", "--ignore", "--explain", "--format", "sarif"):
        assert option in text
    assert " ".join(text.split()).count("Verdict and exit code count all.") == 2
