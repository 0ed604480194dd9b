"""results.json gives the whole result back, or says clearly what is wrong with it."""

import contextlib
import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpnorm.benchmark.exports import FORMAT, from_json, timings_csv, to_csv, to_json, to_parquet
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.errors import InputError
from dpnorm.leakage.estimate import Estimate
from tests.benchmark.report.made_up import made_up_run
from tests.benchmark.report.printing import printed


@pytest.mark.parametrize(
    "write", [to_csv, timings_csv, to_json, to_markdown, to_html, printed, to_parquet]
)
def test_what_is_read_back_is_written_the_same(wide, write):
    assert write(from_json(to_json(wide))) == write(wide)


def test_every_field_comes_back(wide):
    read = from_json(to_json(wide))
    for field in dataclasses.fields(BenchmarkResult):
        if field.name not in ("suite", "rows"):
            assert getattr(read, field.name) == getattr(wide, field.name)
    for row, before in zip(read.rows, wide.rows, strict=True):
        assert row == before


numbers = st.floats(allow_nan=False)
estimates = st.builds(Estimate, numbers, numbers, numbers)


@given(
    row=st.builds(
        Row, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5),
        st.floats(min_value=0, exclude_min=True, allow_nan=False),
        st.sampled_from(["proven", "refuted", "unproven"]),
        st.sampled_from(["trained", "refused", "failed", "incomplete"]),
        seed=st.integers(), void=st.booleans(), accuracy=st.none() | estimates,
        epsilon=st.none() | numbers, auc=st.dictionaries(st.text(max_size=4), estimates),
        course=st.lists(st.tuples(st.integers(), estimates), max_size=3).map(tuple),
        statement_text=st.text(max_size=9), reason=st.text(max_size=9),
    )
)  # fmt: skip
def test_any_row_comes_back_as_it_was(row):
    result = BenchmarkResult("n", (row,), (), {}, {}, "c")
    assert from_json(to_json(result)) == result


def test_a_field_that_did_not_exist_yet_gets_its_default(result):
    read = json.loads(to_json(result))
    for row in read["rows"]:
        del row["audits"], row["norms"]
    assert from_json(json.dumps(read)) == from_json(to_json(result))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the results.json that dpnorm bench wrote"),
        ("{", "not the results.json that dpnorm bench wrote"),
        ("[" * 200_000, "not the results.json that dpnorm bench wrote"),
        ('{"x": NaN}', "NaN is not JSON"),
        ('{"x": "\\ud800"}', "not the results.json that dpnorm bench wrote"),
        ("[]", "no result of a benchmark"),
        ("{}", "no result of a benchmark"),
        ('{"format": 3}', "no result of a benchmark"),
        ('{"format": "dpnorm-benchmark/1"}', "dpnorm-benchmark/1.*run its suite again"),
        (f'{{"format": "{FORMAT}"}}', "the field 'name'"),
    ],
)
def test_foreign_or_damaged_text_is_one_clear_error(text, message):
    with pytest.raises(InputError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "done"}, r"rows\[0\]\.status is 'done', where one of 'trained'"),
        ({"seed": 1.5}, r"rows\[0\]\.seed is 1\.5, where a whole number"),
        ({"seed": True}, r"rows\[0\]\.seed is True"),
        ({"target_epsilon": 0}, r"rows\[0\]\.target_epsilon is 0, where a positive number"),
        ({"target_epsilon": "8"}, r"rows\[0\]\.target_epsilon is '8', where a number"),
        ({"accuracy": {"value": 1.0}}, r"the field 'low' of the result\.rows\[0\]\.accuracy"),
        ({"accuracy": 0.5}, "an object is needed"),
        ({"auc": []}, "an object is needed"),
        ({"course": [[1]]}, "a list of 2"),
        ({"norms": {}}, "a list is needed"),
        ({"norms": [{"epoch": 1, "rest": [1.0, 2.0]}]}, "5 quantiles"),
        ({"roc": {"lira": {"fpr": [0.1], "tpr": [], "non_members": 3}}}, "one TPR for each FPR"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"verdict": None}, "text is needed"),
        ({"void": "yes"}, "true or false"),
    ],
)
def test_a_damaged_row_is_named_with_what_it_needs(result, change, message):
    read = json.loads(to_json(result))
    read["rows"][0] |= change
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(read))


@given(st.data())
def test_whatever_is_damaged_no_other_error_comes(data):
    text = to_json(SMALL)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from('{}[]",:0a\\-'))
    with contextlib.suppress(InputError):
        from_json(text[:at] + letter + text[at + 1 :])


SMALL = dataclasses.replace(made_up_run(), rows=made_up_run().rows[2:3], timings=())


def test_a_result_without_rows_comes_back():
    empty = BenchmarkResult("n", (), (), {"epsilons": [math.inf]}, {}, "c")
    assert to_json(from_json(to_json(empty))) == to_json(empty)
