"""The terminal table at 80 columns, against its golden text.

Refresh the golden text after a wanted change, and read the difference before keeping it:

    DPNORM_REFRESH_GOLDEN=1 python -m pytest tests/benchmark/report/test_report_terminal.py
"""

import io
import os
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.benchmark.terminal import render_terminal

GOLDEN = Path(__file__).with_name("terminal_80_columns.txt")


def printed(
    result: BenchmarkResult, width: int = 80, encoding: str = "utf-8", *, tty: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    colours = "standard" if tty else "auto"
    console = Console(file=file, width=width, force_terminal=tty, color_system=colours, _environ={})
    console.print(render_terminal(result))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_table_at_80_columns_equals_its_golden_text(result):
    text = "\n".join(line.rstrip() for line in printed(result).splitlines()) + "\n"
    if os.environ.get("DPNORM_REFRESH_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_no_line_is_wider_than_80_columns_and_no_row_wraps(result):
    lines = [line.rstrip() for line in printed(result).splitlines()]
    assert max(cell_len(line) for line in lines) <= 80
    table = lines[2 : lines.index("Refused")]
    assert len([line for line in table if line]) == 2 + 3 + len(result.rows)


@pytest.mark.parametrize("name", ["private-batch", "weight-standardized"])
def test_long_variant_names_still_fit_80_columns_on_one_line(result, name):
    rows = tuple(
        Row(**{**row.__dict__, "variant": name}) if row.variant == "frozen" else row
        for row in result.rows
    )
    longer = BenchmarkResult("quick", rows, (), {}, {}, "c")
    lines = printed(longer).splitlines()
    assert max(cell_len(line) for line in lines) <= 80
    assert len([line for line in lines if line.startswith(name)]) == 3


def test_a_pipe_gets_plain_text_and_a_terminal_gets_colour(result):
    assert "\x1b" not in printed(result)
    assert "\x1b[3" in printed(result, tty=True)


def test_an_output_that_holds_ascii_only_gets_words_for_signs(result):
    text = printed(result, encoding="ascii")
    assert "plain training, eps = inf" in text
    assert "97.2 +- 1.2" in text


def test_a_hostile_name_reaches_the_terminal_as_text(hostile):
    text = printed(hostile, width=200)
    assert "\x1b" not in text
    assert r"\n\x1b[31m[red]" in text
