"""What the README shows runs as it stands."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_example_of_the_readme_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len([line for line in example.splitlines() if line]) <= 10
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert not names["dpnorm"].check(names["model"], names["data"].public.x[:8]).ok
    assert names["trained"].statement.epsilon <= 8
    assert "differential privacy for one training record" in capsys.readouterr().out
