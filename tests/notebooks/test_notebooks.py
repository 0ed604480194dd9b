"""Every notebook runs, draws, and is kept as text and with outputs alike."""

import json
import os
import sys
from pathlib import Path

import jupytext
import pytest
from jupytext.compare import compare_notebooks

from notebooks import __main__ as runner

NAMES = [
    "01_why_batchnorm_breaks_dp",
    "02_check_and_convert_your_model",
    "03_train_with_private_statistics",
    "04_measure_leakage",
    "05_benchmark_and_report",
]
LARGEST = 300_000  # bytes of one that is kept with its outputs
NOISE = ("Traceback", "Warning", "\x1b[", "/tmp", "/home", sys.prefix, str(runner.HERE.parent))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with notebooks of the test's own, and another for what is built."""
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "BUILT", tmp_path / "build")
    return tmp_path


def write(folder: Path, name: str, code: str) -> None:
    (folder / f"{name}.py").write_text(f"# %%\n{code}\n", encoding="utf-8")


def shown(notebook) -> list[dict]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(outputs: list[dict]) -> str:
    """What is shown, without pictures."""
    kept = [
        {kind: value for kind, value in output.get("data", {}).items() if "image" not in kind}
        or output.get("text", "")
        for output in outputs
    ]
    return json.dumps(kept, ensure_ascii=False)


def test_every_text_is_tested_here():
    assert list(runner.texts()) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_draws_without_noise(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "BUILT", tmp_path)
    code = runner.main([name])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.startswith(f"{name}: ")
    assert printed.out.endswith(" s\n")
    outputs = shown(jupytext.read(tmp_path / f"{name}.ipynb"))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [word for word in NOISE if word in text_of(outputs)]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_forge_shows_is_the_text_with_outputs(name):
    kept = runner.HERE / f"{name}.ipynb"
    notebook, text = jupytext.read(kept), jupytext.read(runner.texts()[name])
    compare_notebooks(notebook, text, fmt="py:percent", allow_expected_differences=False)
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert kept.stat().st_size < LARGEST
    assert not [word for word in NOISE if word in text_of(shown(notebook))]


def test_a_kernel_is_this_python_with_one_thread_and_no_settings_of_the_user(place, monkeypatch):
    stranger = place / "kernels" / "python3"  # a kernel of the same name that the user has
    stranger.mkdir(parents=True)
    argv = ["/bin/false", "{connection_file}"]
    stranger.joinpath("kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "other", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(place))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    startup = place / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    startup.joinpath("first.py").write_text("print('from the profile')")
    monkeypatch.setenv("IPYTHONDIR", str(place / "ipython"))
    write(
        place,
        "1_where",
        "import os, shutil, sys\nimport torch\nfrom ipykernel.kernelapp import IPKernelApp\n"
        "print([sys.executable, torch.get_num_threads(), IPKernelApp.instance().ip, os.getcwd(),"
        " shutil.which('dpnorm')])",
    )
    (output,) = shown(runner.executed(place / "1_where.py"))
    executable, threads, address, folder, command = eval(output["text"])
    assert (executable, threads, address) == (sys.executable, 1, "127.0.0.1")
    assert not Path(folder).exists()  # it was the notebook's own
    assert Path(command).parent == Path(sys.executable).parent
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_the_same_notebook_is_written_alike_each_time(place):
    write(place, "1_prints", "import time\nprint(1, flush=True)\ntime.sleep(0.3)\nprint(2)")
    path = place / "build" / "1_prints.ipynb"
    written = [runner.main(["1_prints"]) or path.read_bytes() for _ in range(2)]
    assert written[0] == written[1]
    assert not (place / "1_prints.ipynb").exists()


def test_write_puts_it_beside_the_text_too(place):
    write(place, "1_prints", "print('here')")
    assert runner.main(["1_prints", "--write"]) == 0
    beside, built = place / "1_prints.ipynb", place / "build" / "1_prints.ipynb"
    assert "here" in beside.read_text()
    assert beside.read_bytes() == built.read_bytes()
    assert not list(place.glob(".*"))  # of the temporary files none is left


def test_a_cell_that_raises_is_told_with_its_traceback_and_stops_no_other(place, capsys):
    write(place, "1_raises", "total = 0\n1 / total")
    write(place, "2_prints", "print('here')")
    place.joinpath("1_raises.ipynb").write_text("as it was")
    assert runner.main(["--write"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("2_prints: ")
    assert printed.err.startswith("1_raises: ")
    assert "1 / total" in printed.err
    assert "ZeroDivisionError: division by zero" in printed.err
    assert "\x1b" not in printed.err
    assert place.joinpath("1_raises.ipynb").read_text() == "as it was"
    assert [path.stem for path in place.glob("build/*")] == ["2_prints"]


def test_a_cell_that_does_not_end_is_a_failure(place, monkeypatch, capsys):
    monkeypatch.setattr(runner, "SECONDS", 1)
    write(place, "1_sleeps", "import time\ntime.sleep(60)")
    assert runner.main([]) == 1
    assert "1_sleeps: A cell timed out" in capsys.readouterr().err


def test_a_kernel_that_dies_is_a_failure(place, capsys):
    write(place, "1_dies", "import os\nos._exit(3)")
    assert runner.main([]) == 1
    assert "1_dies: Kernel died" in capsys.readouterr().err


def test_a_name_that_is_none_is_one_line_and_exit_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["06_nothing"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m notebooks: there is no notebook '06_nothing': take one of 01")
