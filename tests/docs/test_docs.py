"""The documentation builds, is whole, fetches nothing, and its examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dpnorm
from dpnorm.detection.rules import rules
from dpnorm.explain import topics

ROOT = Path(__file__).parents[2]
EXAMPLES = ["quickstart.md", "how-to/convert.md", "how-to/train.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; the topics are run by tests of their own."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"DPNORM_DOCS_TOPICS": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_rule_topic_and_command_has_its_page(site):
    for code, rule in rules().items():
        assert rule.title.split("`")[0] in (site / "rules" / f"{code}.html").read_text()
    for topic in topics():
        assert (site / "why" / f"{topic}.html").is_file()
    commands = (site / "reference" / "cli.html").read_text()
    for command in ("check", "convert", "train", "pool", "attack", "audit", "bench run", "why"):
        assert f"dpnorm {command}" in commands


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference" / "index.html").read_text()
    for name in dpnorm.__all__:
        assert name == "__version__" or name in page, name
    for package in ("leakage", "privacy", "explain"):
        page = (site / "reference" / f"{package}.html").read_text()
        for name in getattr(dpnorm, package).__all__ if package != "privacy" else ():
            found = getattr(getattr(dpnorm, package), name)
            assert not callable(found) or name in page, name


def test_nothing_is_fetched_and_no_path_of_the_machine_is_told(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:)?//', text)
        assert fetched == [], page.name
        assert str(ROOT) not in text, page.name


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_run(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out
