"""Every notebook runs, draws, and is kept as text and with outputs alike."""

import json

import jupytext
import pytest

from notebooks.__main__ import HERE, executed, main, texts

NOISE = ("/tmp/", "Traceback", "Warning", str(HERE.parent))


def test_there_are_five():
    assert [name[:2] for name in texts()] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", texts())
def test_it_runs_and_draws_and_says_nothing_of_the_machine(name):
    notebook = executed(texts()[name])
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert not [out for out in outputs if out.get("name") == "stderr"]
    text = json.dumps([out for out in outputs if "image/png" not in out.get("data", {})])
    assert not [word for word in NOISE if word in text]


@pytest.mark.parametrize("name", texts())
def test_what_a_forge_shows_is_the_text_with_outputs(name):
    kept = HERE / f"{name}.ipynb"
    assert kept.stat().st_size < 400_000
    shown, text = jupytext.read(kept), jupytext.read(texts()[name])
    assert [(c.cell_type, c.source) for c in shown.cells] == [
        (c.cell_type, c.source) for c in text.cells
    ]
    assert any(cell.get("outputs") for cell in shown.cells)


def test_a_name_that_is_none_is_one_line_and_exit_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["06_nothing"])
    assert "there is no notebook '06_nothing': take one of 01_" in capsys.readouterr().err
