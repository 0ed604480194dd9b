import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


@pytest.fixture(scope="session")
def jax_privacy():
    """Calls jax-privacy 2.0.0 in its own environment: [(name, arguments, options)] -> [float]."""
    version = "import importlib.metadata as m; print(m.version('jax_privacy'))"
    found = PYTHON.exists() and subprocess.run(
        [PYTHON, "-c", version], capture_output=True, text=True
    )
    if not found or found.returncode:
        pytest.skip(f"jax-privacy is not installed in {PYTHON.parents[1].name}: make test-peers")
    assert found.stdout.strip() == "2.0.0"

    def ask(calls: list[tuple[str, list, dict]]) -> list[float]:
        done = subprocess.run(
            [PYTHON, Path(__file__).with_name("peer.py")],
            input=json.dumps(calls),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask
