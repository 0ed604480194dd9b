"""The report in headless Chromium: what its document becomes, and what its console says."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

PREFIX = "test-answer:"


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Chromium without a network of its own; skips the test where it is not installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs chromium: apt-get install -y chromium")
    return subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--v=0", *arguments,
        ],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def written(folder: Path, page: str) -> str:
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    return file.as_uri()


def ask(folder: Path, page: str, script: str, width: int = 1280) -> tuple[Any, str]:
    """What a script says of the page once it is loaded, and the console's words.

    The page stands in a frame of the given width, for no window is narrower than 500 pixels. The
    script is the body of a function. It is added to a copy of the page whose policy allows this
    one script too.
    """
    code = f"top.document.title = {PREFIX!r} + JSON.stringify((() => {{ {script} }})());"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    copy = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    copy = copy.replace("</body>", f"<script>{code}</script></body>")
    frame = f'<iframe srcdoc="{escape(copy)}" style="width:{width}px; height:900px; border:0">'
    host = f'<!doctype html><meta charset="utf-8"><title>no answer</title>{frame}</iframe>'
    run = chromium(folder, "--window-size=1400,1000", "--dump-dom", written(folder, host))
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert title is not None, run.stderr
    assert title[1].startswith(PREFIX), title[1][:200] + run.stderr
    return json.loads(unescape(title[1][len(PREFIX) :])), run.stderr
