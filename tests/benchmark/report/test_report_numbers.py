"""Every output shows the numbers of the rows, and the same ones each time."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest

from dpnorm.benchmark.exports import timings_csv, to_csv, to_json
from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.markdown import to_markdown
from dpnorm.benchmark.plots import plots
from dpnorm.benchmark.report_roc import visible
from dpnorm.benchmark.report_series import subjects
from dpnorm.benchmark.report_tradeoff import frontier
from dpnorm.benchmark.results import BenchmarkResult, Curve, Row
from dpnorm.benchmark.tables import bracketed, columns, plus_minus, sections
from dpnorm.leakage.estimate import Estimate
from tests.benchmark.report.made_up import NOMINAL, audit
from tests.benchmark.report.printing import printed


def test_results_csv_gives_back_every_float_of_every_row(result):
    lines = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert len(lines) == len(result.rows)
    for line, row in zip(lines, result.rows, strict=True):
        numbers = {
            "target_epsilon": row.target_epsilon, "witness": row.witness, "members": row.members,
            "seed": row.seed, "epsilon": row.epsilon, "delta": row.delta,
            "noise_multiplier": row.noise_multiplier,
        }  # fmt: skip
        estimates = {"accuracy": row.accuracy, "memorized": row.memorized}
        for attack in ("loss", "lira"):
            estimates[f"{attack}_auc"] = row.auc.get(attack)
            estimates[f"{attack}_tpr_at_1pct_fpr"] = row.tpr.get(attack)
        for name, estimate in estimates.items():
            for suffix, field in (("", "value"), ("_low", "low"), ("_high", "high")):
                numbers[name + suffix] = None if estimate is None else getattr(estimate, field)
        words = {"dataset", "model", "variant", "verdict", "status", "reason"}
        assert set(line) == set(numbers) | words | {"epsilon_status"}
        for name, value in numbers.items():
            assert line[name] == "" if value is None else float(line[name]) == value
        assert {name: line[name] for name in words} == {name: getattr(row, name) for name in words}


def test_csv_writes_numpy_floats_as_plain_numbers():
    import numpy as np

    value = np.float64(0.1) + np.float64(0.2)
    row = Row("d", "m", "v", np.float64("inf"), "proven", "trained",
              accuracy=Estimate(value, value, value))  # fmt: skip
    text = to_csv(BenchmarkResult("n", (row,), (), {}, {}, "c"))
    assert ",0.30000000000000004,0.30000000000000004," in text
    assert ",inf," in text
    assert "np." not in text


def test_results_csv_holds_no_timing_and_timings_csv_holds_them_all(result):
    untimed = BenchmarkResult(
        result.name, result.rows, (), result.suite, result.versions, result.command, result.notes
    )
    assert to_csv(result) == to_csv(untimed)
    lines = list(csv.DictReader(io.StringIO(timings_csv(result))))
    assert [float(line["training_s"]) for line in lines] == [t.training for t in result.timings]
    assert [float(line["attacks_s"]) for line in lines] == [t.attacks for t in result.timings]


def test_timings_csv_has_seed_audits_and_memory(wide):
    lines = list(csv.DictReader(io.StringIO(timings_csv(wide))))
    for line, timing in zip(lines, wide.timings, strict=True):
        assert int(line["seed"]) == timing.seed
        assert float(line["audits_s"]) == timing.audits
        peak = timing.peak_bytes
        assert line["peak_mib"] == "" if peak is None else float(line["peak_mib"]) == peak / 2**20


def test_json_is_strict_and_holds_the_whole_result(result):
    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    read = json.loads(to_json(result), parse_constant=refuse)
    assert read["suite"]["epsilons"] == ["inf", 8.0, 1.0]
    for line, row in zip(read["rows"], result.rows, strict=True):
        assert float(line["target_epsilon"]) == row.target_epsilon
        assert line["witness"] == row.witness
        for attack, estimate in row.auc.items():
            assert line["auc"][attack] == estimate.__dict__
        for attack, curve in row.roc.items():
            assert line["roc"][attack]["tpr"] == list(curve.tpr)


def rows_of_markdown(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines]


def test_markdown_and_html_show_every_cell_of_every_row(result):
    shown = columns(result)
    table = rows_of_markdown(to_markdown(result))
    html_rows = [
        re.sub(r"<[^>]+>", "\t", line)
        for line in to_html(result).splitlines()
        if '<th scope="row" class="sticky">' in line
    ][: len(result.rows)]
    ordered = [row for section in sections(result) for row in section.rows]
    assert len(html_rows) == len(ordered)
    for row, line in zip(ordered, html_rows, strict=True):
        texts = [column.text(row) for column in shown]
        assert texts in table
        cells = [cell for cell in line.split("\t") if cell]
        if row.status == "trained":
            joined = re.sub(r"\s+", " ", " ".join(cells))
            for text in texts:
                assert re.sub(r"\s+", " ", text) in joined
        else:
            target = f"{row.target_epsilon:g}"
            assert cells[0:5] == ["batch", target, "✗ refuted", "refused", "—"]
            assert "witness 5.81: DPN101" in cells[5]


def test_terminal_shows_value_and_half_width_of_every_trained_row(result):
    text = printed(result)
    lines = iter(text.splitlines())
    for section in sections(result):
        assert any(section.arm in line for line in lines)
        for row in section.rows:
            line = next(lines)
            assert line.split()[:2] == [row.variant, row.verdict]
            if row.status == "refused":
                assert line.split()[2:] == ["refused", "—", "—", "—", "—"]
                continue
            for part in (
                plus_minus(row.accuracy),
                plus_minus(row.auc["lira"], 1, 3),
                plus_minus(row.tpr["lira"]),
                plus_minus(row.memorized),
                "∞" if math.isinf(row.epsilon) else f"{row.epsilon:.2f}",
            ):
                assert part in line


def test_plots_carry_the_numbers_of_the_rows(result):
    drawn = plots(result)
    assert list(drawn) == ["accuracy", "leakage", "roc-inf", "roc-8", "roc-1", "memorization",
                           "cost"]  # fmt: skip
    trained = [row for row in result.rows if row.status == "trained"]

    def column(plot, name):
        return [cells[plot.data.header.index(name)] for cells in plot.data.rows]

    for name in ("value", "low", "high"):
        suffix = "" if name == "value" else f"_{name}"
        accuracy = [getattr(row.accuracy, name) for row in trained]
        assert column(drawn["accuracy"], f"accuracy{suffix}") == accuracy
        assert column(drawn["leakage"], f"accuracy{suffix}") == accuracy
        leakage = [getattr(row.auc["lira"], name) for row in trained]
        assert column(drawn["leakage"], f"lira_auc{suffix}") == leakage
        memorized = [getattr(row.memorized, name) for row in trained]
        assert column(drawn["memorization"], f"memorized{suffix}") == memorized
    assert "none (∞)" in drawn["accuracy"].svg
    assert "batch (refused at 1, 8)" in drawn["accuracy"].svg
    assert "resolution limit 1/640" in drawn["roc-inf"].svg


def test_the_wide_run_has_a_plot_of_everything(wide):
    drawn = plots(wide)
    parts = {plot.part for plot in drawn.values()}
    assert parts == {"accuracy", "leakage", "roc", "memorization", "norms", "audits", "cost"}
    assert "batch (void at 1, 8)" in drawn["accuracy"].svg
    assert "hollow: void" in drawn["accuracy"].svg
    assert drawn["norms-epochs-8"].data.header[-5:] == ("q05", "q25", "q50", "q75", "q95")
    audits = drawn["audits"].data
    claims = {row[audits.header.index("claimed_epsilon")] for row in audits.rows}
    assert claims == {None, *NOMINAL.values()}
    assert len(audits.rows) == sum(len(row.audits) for row in wide.rows)


def test_a_bound_above_its_claim_is_loud_everywhere(wide):
    exceeded = replace(wide.rows[-1], audits=(audit("white-box", 0.9917, 2.5),))
    run = replace(wide, rows=(*wide.rows[:-1], exceeded))
    for write in (to_markdown, to_html, printed):
        assert "An audited bound is above its claim" in write(run)
        assert "An audited bound is above its claim" not in write(wide)
    assert "refutes its claim" in plots(run)["audits"].svg


def test_seeds_are_joined_to_their_mean_and_the_hull_of_their_intervals(wide):
    (subject,) = subjects(wide)
    arm = next(arm for arm in subject.arms if (arm.variant, arm.target_epsilon) == ("rms", 8.0))
    first, second = (row.accuracy for row in arm.rows)
    joined = arm.over_seeds(lambda row: row.accuracy)
    assert joined.value == pytest.approx((first.value + second.value) / 2)
    assert (joined.low, joined.high) == (min(first.low, second.low), max(first.high, second.high))


def test_no_arm_beats_one_on_the_frontier_and_no_void_arm_is_on_it(wide):
    (subject,) = subjects(wide)
    measured = [
        (arm, arm.over_seeds(lambda r: r.accuracy), arm.over_seeds(lambda r: r.auc["lira"]))
        for arm in subject.arms
    ]
    best = frontier(measured)
    assert best
    for arm, accuracy, auc in best:
        assert not arm.void
        assert not [
            other
            for other, a, b in measured
            if not other.void
            and (a.value > accuracy.value and b.value <= auc.value)
            | (a.value >= accuracy.value and b.value < auc.value)
        ]
    for one in measured:
        if one not in best and not one[0].void:
            assert any(a.value >= one[1].value and b.value <= one[2].value for _, a, b in best)


def test_roc_is_masked_below_what_the_non_members_resolve():
    fpr, tpr = visible(Curve((0.0, 0.001, 0.009, 0.02, 1.0), (0.0, 0.1, 0.2, 0.3, 1.0), 100))
    assert (fpr, tpr) == ([0.01, 0.02, 1.0], [0.2, 0.3, 1.0])


def test_the_same_result_renders_to_the_same_bytes(result):
    for write in (to_csv, timings_csv, to_json, to_markdown, to_html, printed):
        assert write(result) == write(result)


def test_plots_leave_matplotlib_as_it_was(result):
    import sys

    import matplotlib

    before = dict(matplotlib.rcParams)
    had_pyplot = "matplotlib.pyplot" in sys.modules
    plots(result)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


@pytest.mark.parametrize("kept", [slice(0, 0), slice(1, 2), slice(3, 4), slice(4, 5)])
def test_a_run_of_one_row_or_none_still_renders(result, kept):
    small = BenchmarkResult("one", result.rows[kept], (), {}, {}, "dpnorm bench run one.toml")
    for write in (to_csv, timings_csv, to_json, to_markdown, to_html, printed):
        assert write(small)


def test_an_interval_that_is_not_known_is_not_invented():
    alone = Estimate(0.9, -math.inf, math.inf)
    assert plus_minus(alone) == "90.0 ± —"
    assert bracketed(alone) == "90.0 [—, —]"
    row = Row("d", "m", "group", math.inf, "proven", "trained", members=1, accuracy=alone,
              memorized=alone)  # fmt: skip
    assert "90.0" in to_html(BenchmarkResult("n", (row,), (), {}, {}, "c"))


def test_two_models_get_a_plot_each_under_their_names(result):
    other = [Row(**{**row.__dict__, "model": "lenet"}) for row in result.rows]
    both = BenchmarkResult("two", (*result.rows, *other), (), {}, {}, "c")
    drawn = plots(both)
    assert set(drawn) == {
        f"{kind}-digits-{model}"
        for kind in ("accuracy", "roc-inf", "roc-8", "roc-1", "memorization", "leakage")
        for model in ("resnet8", "lenet")
    }
    assert "batch (lenet on digits) is refused at ε = 8 and 1." in " ".join(printed(both).split())
