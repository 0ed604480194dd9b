import csv
import io
import math

import numpy as np
import pytest

from dpnorm.benchmark import Suite, run_suite
from dpnorm.benchmark.measure import mean_with_interval
from dpnorm.benchmark.store import Store

TINY = Suite(
    name="tiny",
    datasets=("digits",),
    models=("lenet",),
    variants=("batch", "group", "frozen"),
    epsilons=(math.inf, 4.0),
    members=3,
    outliers={"kind": "noise", "count": 20},
    training={"epochs": 2, "batch_size": 64, "lr": 0.05},
    private_training={"epochs": 1, "batch_size": 128, "lr": 0.5, "momentum": 0.0},
    privacy={"delta": 1e-4},
)


class Told:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.before = -1

    def begin(self, total: int, finished: int) -> None:
        self.before = finished

    def finished(self, description: str, seconds: float) -> None:
        self.done.append(description)

    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    told = Told()
    return folder, run_suite(TINY, folder, workers=1, progress=told), told


def rows_of(folder) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def test_the_run_folder_holds_the_five_files_and_nothing_half_written(run):
    folder, _, _ = run
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "cells",
        "results.csv",
        "timings.csv",
        "results.json",
        "report.md",
        "report.html",
    }
    assert len(list((folder / "cells").iterdir())) == 5 * 3


def test_batch_norm_under_privacy_is_refused_with_its_witness(run):
    folder, _, told = run
    (row,) = [
        r for r in rows_of(folder) if r["variant"] == "batch" and r["target_epsilon"] != "inf"
    ]
    assert row["status"] == "refused"
    assert row["verdict"] == "refuted"
    assert float(row["witness"]) > 0.1
    assert row["accuracy"] == row["epsilon"] == ""
    assert not any("batch epsilon" in cell for cell in told.done)


def test_every_other_row_is_measured(run):
    folder, _, _ = run
    rows = [r for r in rows_of(folder) if r["status"] == "trained"]
    assert [(r["variant"], r["target_epsilon"]) for r in rows] == [
        ("batch", "inf"),
        ("group", "inf"),
        ("group", "4.0"),
        ("frozen", "inf"),
        ("frozen", "4.0"),
    ]
    for row in rows:
        assert float(row["accuracy_low"]) < float(row["accuracy"]) < float(row["accuracy_high"])
        assert 0 <= float(row["lira_auc_low"]) <= float(row["lira_auc_high"]) <= 1
        assert row["memorized"] != ""
        private = row["target_epsilon"] == "4.0"
        assert (3.9 <= float(row["epsilon"]) <= 4.0) if private else row["epsilon"] == "inf"


def test_the_same_seed_gives_the_same_csv_on_two_workers_in_another_folder(run, tmp_path):
    folder, _, _ = run
    run_suite(TINY, tmp_path / "again", workers=2)
    assert (tmp_path / "again" / "results.csv").read_bytes() == (
        folder / "results.csv"
    ).read_bytes()


def test_another_seed_gives_other_numbers(run, tmp_path):
    folder, _, _ = run
    other = TINY.model_copy(update={"seed": 1, "variants": ("group",), "epsilons": (math.inf,)})
    run_suite(other, tmp_path / "other", workers=1)
    mine = [r for r in rows_of(folder) if (r["variant"], r["epsilon"]) == ("group", "inf")]
    assert rows_of(tmp_path / "other")[0]["lira_auc"] != mine[0]["lira_auc"]


def test_finished_cells_are_not_computed_again_and_damaged_ones_are(run):
    folder, _, _ = run
    before = (folder / "results.csv").read_bytes()
    damaged, missing = sorted((folder / "cells").iterdir())[:2]
    damaged.write_bytes(damaged.read_bytes()[:100])
    missing.unlink()
    told = Told()
    run_suite(TINY, folder, workers=1, progress=told)
    assert told.before == 13
    assert len(told.done) == 2
    assert (folder / "results.csv").read_bytes() == before


def test_cells_of_an_unlike_suite_have_other_names(run):
    from dpnorm.benchmark.arms import plan

    names = {cell.name for arm in plan(TINY) for cell in arm.cells}
    other = TINY.model_copy(update={"members": 4})
    assert not names & {cell.name for arm in plan(other) for cell in arm.cells}
    store = Store(run[0])
    assert all(store.load(cell) is not None for arm in plan(TINY) for cell in arm.cells)


def test_student_interval_equals_scipy():
    from scipy import stats

    values = [0.91, 0.93, 0.88, 0.95]
    estimate = mean_with_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(np.mean(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
