"""results.parquet holds the columns of results.csv, typed."""

import csv
import io
import math

import pytest

from dpnorm.benchmark.exports import to_csv, to_parquet
from dpnorm.benchmark.results import BenchmarkResult

pa = pytest.importorskip("pyarrow")


def read(content: bytes):
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content))


def test_the_columns_are_those_of_the_csv_with_types(wide):
    table = read(to_parquet(wide))
    header = next(csv.reader(io.StringIO(to_csv(wide))))
    assert table.column_names == header
    types = {name: str(table.schema.field(name).type) for name in header}
    assert types["variant"] == types["epsilon_status"] == types["reason"] == "string"
    assert types["seed"] == types["members"] == "int64"
    assert types["accuracy"] == types["epsilon"] == types["audit_white_box_ceiling"] == "double"
    assert types["audit_white_box_exceeded"] == "bool"


def test_every_number_is_that_of_the_csv(wide):
    lines = csv.DictReader(io.StringIO(to_csv(wide)))
    for typed, line in zip(read(to_parquet(wide)).to_pylist(), lines, strict=True):
        for name, value in typed.items():
            if value is None:
                assert line[name] == ""
            elif isinstance(value, bool):
                assert line[name] == str(value).lower()
            else:
                assert type(value)(line[name]) == value


def test_the_same_rows_give_the_same_bytes(wide):
    untimed = BenchmarkResult("x", wide.rows, (), {}, {}, "c")
    assert to_parquet(wide) == to_parquet(wide) == to_parquet(untimed)


def test_infinity_and_missing_stay_apart(wide):
    rows = read(to_parquet(wide)).to_pylist()
    assert math.isinf(rows[0]["epsilon"])
    assert {row["accuracy"] for row in rows if row["status"] != "trained"} == {None}


def test_no_rows_still_have_a_schema():
    table = read(to_parquet(BenchmarkResult("n", (), (), {}, {}, "c")))
    assert table.num_rows == 0
    assert "lira_auc" in table.column_names
