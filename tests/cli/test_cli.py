"""The command line as a user runs it: its output and its exit code."""

import contextlib
import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest


@dataclass
class Result:
    stdout: str
    stderr: str
    returncode: int


def dpnorm(*arguments: str, cwd=".") -> Result:
    """Runs the command in this process, from another folder."""
    from dpnorm.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["dpnorm", *arguments])
        try:
            main()
        except SystemExit as stop:
            return Result(out.getvalue(), err.getvalue(), stop.code or 0)
    return Result(out.getvalue(), err.getvalue(), 0)


def assert_usage_error(result: Result, *words: str) -> None:
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_help_answers_within_half_a_second_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['dpnorm', '--help']\n"
        "from dpnorm.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'opacus', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    # a machine may be slow: then no more than three times what the parser of the line itself takes
    assert _best_seconds(code) < max(0.5, 3 * _best_seconds("import typer"))


def _best_seconds(code: str) -> float:
    """Of three runs: other work on the machine only adds."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        found.append(time.perf_counter() - started)
    return min(found)


def test_the_command_ends_a_mistake_without_a_traceback():
    result = subprocess.run(
        [sys.executable, "-c", "from dpnorm.cli import main; main()", "rule", "DPN1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_usage_error(Result(result.stdout, result.stderr, result.returncode), "'DPN1'")


def test_check_names_every_layer_and_exits_1():
    result = dpnorm("check", "lenet", "--input", "4,1,8,8", "--format", "json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "refuted"
    assert [f["code"] for f in report["findings"]] == ["DPN101", "DPN101"]
    assert all(f["witness"] > 0.1 for f in report["findings"])


def test_check_table_fits_eighty_columns():
    result = dpnorm("check", "resnet8", "--input", "4,1,8,8", "--loss", "cross-entropy")
    assert result.returncode == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "9 BatchNorm2d" in result.stdout


def test_convert_shows_a_diff_and_writes_weights(tmp_path):
    target = tmp_path / "model.safetensors"
    result = dpnorm("convert", "lenet", "--to", "group", "--diff", "-o", str(target))
    assert result.returncode == 0
    assert result.stdout.count("\n- BatchNorm2d") == 2
    assert result.stdout.count("\n+ GroupNorm") == 2
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "model.json"}


def test_convert_diff_fits_80_columns_and_writes_nothing(tmp_path):
    result = dpnorm("convert", "tv:resnet18", "--diff", "--to", "weight-standardized", cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert lines[0] == "--- tv:resnet18"
    assert "@@ layer2.0.downsample.1 @@" in lines
    assert "- BatchNorm2d(64)" in lines
    assert "+ GroupNorm(4, 64)" in lines
    assert lines[-2:] == ["# 20 layers exchanged", "# now out of place: 8 BasicBlock, 9 ReLU"]
    assert max(map(len, lines)) <= 80
    assert list(tmp_path.iterdir()) == []


def test_convert_says_when_there_is_nothing_to_exchange():
    result = dpnorm("convert", "tv:vit_b_16")
    assert "0 layers" in result.stdout
    assert "nothing to exchange" in result.stdout


def test_train_writes_model_config_history_and_statement(tmp_path):
    config = tmp_path / "train.toml"
    config.write_text(
        'data = "digits"\nmodel = "lenet"\n[training]\nepochs = 5\nbatch_size = 128\n'
        "[privacy]\nepsilon = 8.0\ndelta = 1e-4\n"
    )
    folder = tmp_path / "out"
    result = dpnorm("train", str(config), "training.epochs=1", "variant=layer", "-o", str(folder))
    assert result.returncode == 0, result.stderr
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "history.csv",
        "statement.json",
        "statement.md",
        "ledger.json",
    }
    written = json.loads((folder / "config.json").read_text())
    assert (written["training"]["epochs"], written["variant"]) == (1, "layer")
    assert json.loads((folder / "statement.json").read_text())["epsilon"] <= 8
    assert "epoch 1/1" in result.stderr
    again = dpnorm("train", str(config), "-o", str(folder))
    assert_usage_error(again, "holds a finished run")


def test_rule_prints_a_page_and_the_list():
    assert dpnorm("rule", "dpn101").stdout.startswith("# DPN101: batch statistics")
    assert "DPN201" in dpnorm("rule").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "lennet", "--input", "4,1,8,8"), ["unknown model 'lennet'", "'lenet'?"]),
        (("check", "lenet"), ["--input"]),
        (("check", "lenet", "--input", "4,x"), ["'4,x'", "4,3,224,224"]),
        (("check", "lenet", "--input", "1,1,8,8"), ["hold 1 record", "at least 2"]),
        (("check", "lenet", "--input", "4,1,8"), ["the model raised"]),
        (("check", "lenet", "--input", "4,1,8,8", "--format", "jsn"), ["did you mean 'json'"]),
        (("check", "no.such.module:factory", "--input", "4,1"), ["no.such"]),
        (("convert", "lenet", "--to", "grup"), ["unknown variant 'grup'", "'group'?"]),
        (("convert", "mlp", "--to", "instance"), ["instance normalization would erase it"]),
        (("convert", "lenet", "-o", "model.pt"), [".safetensors"]),
        (("train", "missing.toml"), ["no file 'missing.toml'"]),
        (("rule", "DPN10"), ["unknown rule 'DPN10'"]),
        (("why", "--plots", "x"), ["--plots needs a topic"]),
        (("why", "copling"), ["unknown topic 'copling'", "'coupling'?"]),
        (("why", "coupling", "--format", "htm"), ["unknown format 'htm'", "'html'?"]),
        (("bench", "speed", "--networks", "lennet"), ["lennet", "'lenet'"]),
        (("bench", "speed", "--only", "chek"), ["chek", "'check'"]),
        (("bench", "speed", "--quick", "--repeats", "2"), ["repeats", "3"]),
        (("bench", "speed", "--format", "jsn"), ["unknown format 'jsn'", "'json'"]),
        (("bench", "report", "runs/x"), ["holds no run of dpnorm bench", "no run.json"]),
        (("bench", "status", "runs/x"), ["holds no run of dpnorm bench"]),
        (("bench", "compare", "runs/x", "runs/y"), ["holds no run of dpnorm bench"]),
        (("bench", "validate"), ["name a suite, or --schema"]),
        (("bench", "validate", "quik"), ["unknown suite 'quik'", "'quick'?"]),
        (("bench", "run", "missing.toml"), ["no file 'missing.toml'"]),
        (("bench", "run", "quick", "--engine", "rai"), ["unknown engine 'rai'", "'ray'?"]),
        (("bench", "run", "quick", "--address", "x:1"), ["add --engine ray"]),
        (("bench", "run", "quick", "-O", "fast"), ["unknown override 'fast'"]),
        (("bench", "plan", "quick", "--runs", "nowhere://x"), ["cannot be opened"]),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_2(arguments, words, tmp_path):
    assert_usage_error(dpnorm(*arguments, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


SUITE = """
name = "tiny"
datasets = ["digits"]
models = ["lenet"]
variants = ["group"]
epsilons = [inf]
[pool]
size = 3
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("size = 3", "sise = 3"), ["unknown key 'sise'", "did you mean 'size'"]),
        (('["group"]', '["grup"]'), ["unknown variant 'grup'", "'group'?"]),
        (('["lenet"]', '["lenett"]'), ["unknown model 'lenett'", "'lenet'?"]),
        (('["digits"]', '["digit"]'), ["unknown data set 'digit'", "'digits'?"]),
        (("size = 3", 'size = "two"'), ["size", "'two'", "integer"]),
        (("[inf]", "[-1.0]"), ["epsilons", "greater than 0"]),
        (("[inf]", "[1e-6]"), ["epsilon 1e-06 cannot be reached"]),
        (
            ("size = 3", "size = 3\n[training]\nbatch_size = 4000"),
            ["batch_size is 4000"],
        ),
        (
            ('["lenet"]\nvariants = ["group"]', '["mlp"]\nvariants = ["instance"]'),
            ["mlp cannot take"],
        ),
        (
            ("size = 3", "size = 3\n[training]\nepoch = 3"),
            ["training", "did you mean 'epochs'"],
        ),
        (("size = 3", "size = = 3"), ["not valid TOML"]),
        (('["digits"]', '["npz:nowhere.npz"]'), ["nowhere.npz"]),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_is_written(change, words, tmp_path):
    before, after = change
    assert before in SUITE
    (tmp_path / "suite.toml").write_text(SUITE.replace(before, after))
    result = dpnorm("bench", "run", "suite.toml", cwd=tmp_path)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("planning")]
    result.stderr = "\n".join(lines)
    assert_usage_error(result, *words)
    assert [p.name for p in tmp_path.iterdir()] == ["suite.toml"]
