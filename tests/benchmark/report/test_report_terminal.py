"""The terminal table at 80 columns, against its golden text.

Refresh the golden text after a wanted change, and read the difference before keeping it:

    DPNORM_REFRESH_GOLDEN=1 python -m pytest tests/benchmark/report/test_report_terminal.py
"""

import os
from pathlib import Path

import pytest
from rich.cells import cell_len

from dpnorm.benchmark.results import BenchmarkResult, Row
from tests.benchmark.report.printing import printed

GOLDEN = Path(__file__).with_name("terminal_80_columns.txt")


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


def test_the_wide_run_fits_80_columns_with_every_number_whole(wide):
    lines = printed(wide).splitlines()
    assert max(cell_len(line) for line in lines) <= 80
    row = next(row for row in wide.rows if row.variant == "weight-standardized")
    assert any(f"{100 * row.memorized.value:.1f} ± 5.0" in line for line in lines)


def test_a_name_that_does_not_fit_is_folded_at_its_hyphen(wide):
    lines = [line.split() for line in printed(wide).splitlines()]
    places = [i for i, words in enumerate(lines) if words[:1] == ["weight-"]]
    assert places
    assert all(lines[i + 1] == ["standardized"] for i in places)


def test_a_block_a_seed_where_there_are_several(wide):
    text = printed(wide)
    for seed in (0, 1):
        assert f"── DP-SGD, target ε = 8, δ = 1e-5, seed {seed}" in text


def test_what_failed_or_is_incomplete_says_so_like_what_was_refused(wide):
    text = " ".join(printed(wide).split())
    assert "folded is refused at ε = 8 and 1. Check says unproven: DPN901" in text
    assert "evonorm failed at ε = 8 (seed 1). MemoryError: 3 | GiB" in text
    assert "none is incomplete at ε = 1. 1 of 8 members is missing" in text
