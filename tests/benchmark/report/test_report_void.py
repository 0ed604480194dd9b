"""A void epsilon is never printed as an epsilon, and what leaks stands beside it."""

import csv
import io
import json
import re
from urllib.parse import unquote

import pytest

from dpnorm.benchmark.exports import timings_csv, to_csv, to_json, to_parquet
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.report_words import VOID_NOTE
from tests.benchmark.report.made_up import NOMINAL
from tests.benchmark.report.printing import printed

MARK = 7.123456  # stands nowhere else in the run


@pytest.fixture(scope="module")
def void_run(wide):
    """The run with void arms alone, whose accountant says a number that is easily found."""
    from dataclasses import replace

    rows = tuple(
        replace(
            row,
            epsilon=MARK,
            statement={**row.statement, "epsilon": MARK, "total_epsilon": MARK},
            statement_text=f"({MARK}, 1e-05)-differential privacy",
        )
        for row in wide.rows
        if row.void
    )
    return replace(wide, rows=rows)


@pytest.mark.parametrize("write", [to_csv, timings_csv, to_markdown, to_html, printed])
def test_no_text_holds_the_number_of_a_void_epsilon(void_run, write):
    text = unquote(write(void_run))
    assert "7.12" not in text
    assert "7.123" not in text
    if write is not timings_csv:
        assert "void" in text


def test_parquet_and_csv_have_no_void_epsilon_but_its_status(wide):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(to_parquet(wide))).to_pylist()
    lines = list(csv.DictReader(io.StringIO(to_csv(wide))))
    for typed, line, row in zip(table, lines, wide.rows, strict=True):
        assert typed["epsilon_status"] == line["epsilon_status"]
        private = row.target_epsilon in NOMINAL and row.status == "trained"
        expected = "void" if row.void else "claimed" if private else "none"
        assert line["epsilon_status"] == expected
        if row.void:
            assert line["epsilon"] == ""
            assert typed["epsilon"] is None


def test_json_says_void_and_keeps_the_number_as_nominal(wide):
    for line, row in zip(json.loads(to_json(wide))["rows"], wide.rows, strict=True):
        if row.void:
            assert line["epsilon"] == line["statement"] == line["statement_text"] == "void"
            assert line["epsilon_nominal"] == row.epsilon
        else:
            assert "epsilon_nominal" not in line


@pytest.mark.parametrize("write", [to_markdown, to_html, printed])
def test_one_note_explains_void_and_says_what_leaks(wide, write):
    def words(text: str) -> str:
        return re.sub(r"\W+", " ", text.replace("&#x27;", "'"))

    text = words(write(wide))
    assert text.count(words(VOID_NOTE)) == 1
    row = next(row for row in wide.rows if row.void)
    leak = f"{row.variant} at target ε = 8, seed 0: ε void; LiRA AUC {row.auc['lira'].value:.3f}"
    assert words(leak) in text


def test_nothing_speaks_of_void_where_nothing_is(result):
    for write in (to_csv, to_markdown, printed):
        assert "void" not in write(result).lower()
