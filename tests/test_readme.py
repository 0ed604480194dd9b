"""What the README and the notebooks show runs as it stands."""

import re
import runpy
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]


def test_the_example_of_the_readme_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len([line for line in example.splitlines() if line]) <= 10
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert not names["dpnorm"].check(names["model"], names["data"].public.x[:8]).ok
    assert names["trained"].statement.epsilon <= 8
    assert "differential privacy for one training record" in capsys.readouterr().out


@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem
)
def test_notebooks_run(notebook, capsys):
    matplotlib.use("Agg")
    names = runpy.run_path(str(notebook))
    assert names["kept"]["group", "match"] > names["kept"]["group", "reset"] + 0.05
    assert "differential privacy" in capsys.readouterr().out
