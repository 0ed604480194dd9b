"""Running a command of dpnorm in this process, as its user sees it."""

import contextlib
import io
import sys
from dataclasses import dataclass

import pytest


@dataclass
class Result:
    stdout: str
    stderr: str
    returncode: int


def run(command: str, *arguments: object) -> Result:
    """Runs `dpnorm COMMAND ARGUMENTS`."""
    from dpnorm.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["dpnorm", command, *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    assert isinstance(code, int)
    return Result(out.getvalue(), err.getvalue(), code)


def assert_one_line(result: Result, *words: str) -> None:
    """A mistake: exit code 2, nothing on stdout, and one line of complaint, which is the last."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("dpnorm: ")]
    assert said == result.stderr.strip().splitlines()[-1:], result.stderr
    for word in words:
        assert word in said[0]
