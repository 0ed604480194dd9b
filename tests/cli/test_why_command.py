import pytest
from typer.testing import CliRunner

from dpnorm.cli.main import app
from dpnorm.explain import topics


def run(*arguments):
    return CliRunner().invoke(app, ["why", *map(str, arguments)])


def test_without_a_topic_all_are_listed():
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(topics())
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_an_answer_goes_to_stdout_and_its_plots_to_a_folder(form, tmp_path):
    result = run("coupling", "--format", form, "--plots", tmp_path)
    assert result.exit_code == 0
    assert topics()["coupling"] in result.stdout
    (plot,) = tmp_path.iterdir()
    assert plot.name == "coupling-gradients.svg"
    assert str(plot) in result.stdout.replace("\n", "")


def test_what_a_run_does_not_show_makes_the_exit_code_1(monkeypatch):
    from dpnorm.explain import coupling

    opposite = coupling.measure(subject="group")
    monkeypatch.setattr(coupling, "measure", lambda: opposite)
    result = run("coupling")
    assert result.exit_code == 1
    assert "This run does not show what the text says." in result.stdout


def test_plots_go_into_a_folder_that_is_made_and_are_named(tmp_path):
    result = run("private-statistics", "--plots", tmp_path / "new")
    assert result.exit_code == 0
    written = sorted((tmp_path / "new").iterdir())
    assert [file.suffix for file in written] == [".svg", ".svg"]
    assert all(file.name in result.stdout for file in written)
