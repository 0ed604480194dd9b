import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from dpnorm.benchmark import open_engine, run_suite
from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.cells import AuditCell, MemberCell, is_finished
from dpnorm.benchmark.measure import mean_with_interval
from dpnorm.benchmark.plan_file import load_plan
from dpnorm.benchmark.pools import run_pools
from dpnorm.benchmark.report_words import gaps
from dpnorm.benchmark.status import status_of
from dpnorm.benchmark.storage import open_storage
from dpnorm.errors import InputError, StorageError
from tests.benchmark.suites import Told, one_arm, tiny

SUITE = tiny()


def one_process():
    return open_engine("local", workers=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs, told = tmp_path_factory.mktemp("runs"), Told()
    return runs, run_suite(SUITE, runs, engine=one_process(), progress=told), told


def rows_of(runs, name="tiny") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((runs / name / "results.csv").read_text())))


def cell_files(runs):
    return sorted((runs / "cells").iterdir())


def test_the_run_folder_holds_the_plan_and_the_report_and_nothing_half_written(run):
    runs, done, _ = run
    assert {p.name for p in runs.iterdir()} == {"cells", "tiny"}
    assert {p.name for p in (runs / "tiny").iterdir()} == {
        "run.json",
        "results.csv",
        "results.parquet",
        "timings.csv",
        "results.json",
        "report.md",
        "report.html",
    }
    assert len(cell_files(runs)) == 5 * 3 + 5
    assert done.failures == ()


def test_batch_norm_under_privacy_is_refused_with_its_witness(run):
    runs, _, told = run
    (row,) = [r for r in rows_of(runs) if r["status"] == "refused"]
    assert (row["variant"], row["target_epsilon"], row["verdict"]) == ("batch", "4.0", "refuted")
    assert float(row["witness"]) > 0.1
    assert row["accuracy"] == row["epsilon"] == ""
    assert not any("batch epsilon" in cell for cell in told.done)


def test_every_other_row_is_measured(run):
    rows = [r for r in rows_of(run[0]) if r["status"] == "trained"]
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
    run_suite(SUITE, tmp_path, engine=open_engine("local", workers=2))
    assert (tmp_path / "tiny" / "results.csv").read_bytes() == (
        run[0] / "tiny" / "results.csv"
    ).read_bytes()


def test_another_seed_gives_other_numbers_and_rows_of_their_own(run, tmp_path):
    run_suite(one_arm(seeds=(0, 1)), tmp_path, engine=one_process())
    mine = [r for r in rows_of(run[0]) if (r["variant"], r["epsilon"]) == ("group", "inf")]
    first, second = rows_of(tmp_path)
    assert (first["seed"], second["seed"]) == ("0", "1")
    assert first["lira_auc"] == mine[0]["lira_auc"] != second["lira_auc"]


def test_a_finished_cell_is_never_computed_again_by_any_suite(run):
    runs, _, _ = run
    before = {f.name: f.stat().st_mtime_ns for f in cell_files(runs)}
    told = Told()
    other = one_arm(name="other", variants=("group", "none"))
    run_suite(other, runs, engine=one_process(), progress=told)
    assert told.before == 4  # the members of group, and what was measured of them
    assert len(told.done) == 4
    after = {f.name: f.stat().st_mtime_ns for f in cell_files(runs)}
    assert before.items() <= after.items()
    assert rows_of(runs, "other")[0]["lira_auc"] == rows_of(runs)[2]["lira_auc"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "other"])
def test_a_damaged_cell_is_noticed_and_computed_again(run, damage):
    runs, _, _ = run
    before = (runs / "tiny" / "results.csv").read_bytes()
    arm = load_plan(open_storage(runs), "tiny").arms[2]
    file = runs / arm.members[1].file
    content = file.read_bytes()
    middle = len(content) // 2
    file.unlink()
    if damage != "gone":
        file.write_bytes(
            {
                "cut": content[:middle],
                "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "empty": b"",
                "other": (runs / arm.members[0].file).read_bytes(),
            }[damage]
        )
    status = status_of(load_plan(open_storage(runs), "tiny"), open_storage(runs))
    assert status.count("missing" if damage == "gone" else "damaged") == 1
    told = Told()
    run_suite(SUITE, runs, engine=one_process(), progress=told)
    assert told.done == [arm.members[1].describe()]
    assert (runs / "tiny" / "results.csv").read_bytes() == before


def test_cells_of_an_unlike_suite_of_other_code_or_torch_have_other_names(run, monkeypatch):
    names = {cell.name for arm in plan(SUITE) for cell in arm.trained()}
    other = tiny(pool={"size": 4, "outliers": 20})
    assert not names & {cell.name for arm in plan(other) for cell in arm.trained()}
    storage = open_storage(run[0])
    assert all(is_finished(storage, cell) for arm in plan(SUITE) for cell in arm.cells())
    monkeypatch.setattr("dpnorm.benchmark.code.code_fingerprint", lambda parts: "another")
    status = status_of(load_plan(storage, "tiny"), storage)
    assert (status.count("finished"), status.count("missing")) == (0, 20)
    assert "planned by other code" in str(status)
    assert len(cell_files(run[0])) >= 20  # they are kept


def test_a_cell_that_fails_is_told_and_does_not_stop_the_others(monkeypatch):
    real = MemberCell.train

    def train(cell):
        if (cell.variant, cell.member) == ("group", 1) and broken:
            raise ZeroDivisionError("planted")
        return real(cell)

    broken = True
    monkeypatch.setattr(MemberCell, "train", train)
    suite = one_arm(variants=("group", "none"))
    runs = "memory://failing"  # cells are computed in this process
    storage = open_storage(runs)
    done = run_suite(suite, runs)
    assert done.failures == (("digits lenet group plain #1", "ZeroDivisionError: planted"),)
    failed, trained = done.result.rows
    assert (failed.status, trained.status) == ("failed", "trained")
    assert failed.reason == "digits lenet group plain #1: ZeroDivisionError: planted"
    (file,) = storage.names("failures")
    assert "in train" in json.loads(storage.read(file))["traceback"]
    status = status_of(load_plan(storage, "tiny"), storage)
    assert (status.count("failed"), status.count("missing")) == (1, 1)
    assert "ZeroDivisionError: planted" in str(status)
    broken = False
    again = run_suite(suite, runs)
    assert again.failures == ()
    assert [row.status for row in again.result.rows] == ["trained", "trained"]
    assert storage.names("failures") == []


def test_what_was_measured_of_an_arm_stands_although_its_audit_failed(monkeypatch):
    def fail(cell, storage):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(AuditCell, "compute", fail)
    suite = one_arm(epsilons=(4.0,), audits={"canaries": 60, "records": 60})
    done = run_suite(suite, "memory://unaudited")
    ((cell, error),) = done.failures
    assert error == "ZeroDivisionError: planted"
    (row,) = done.result.rows
    assert (row.status, row.audits) == ("trained", ())
    assert row.accuracy is not None
    assert row.reason == f"{cell}: {error}"
    (line,) = gaps(done.result)["Not audited"]
    assert line == f"group has no audited bound at ε = 4. {cell}: {error}"


def test_a_forbidden_arm_is_trained_on_request_and_its_epsilon_is_void_everywhere(tmp_path):
    suite = tiny(
        allow="refuted",
        variants=("batch", "group"),
        epsilons=(4.0,),
        audits={"canaries": 60, "records": 60},
    )
    done = run_suite(suite, tmp_path, engine=one_process())
    forbidden, allowed = done.result.rows
    assert (forbidden.void, allowed.void) == (True, False)
    assert forbidden.status == "trained"
    assert forbidden.verdict == "refuted"
    assert len(forbidden.audits) == len(allowed.audits) == 2
    assert math.isinf(forbidden.audits[0].claimed)
    assert allowed.audits[0].claimed <= 4.0
    assert "digits lenet batch epsilon void (target 4)" in [
        pool for pool, _ in run_pools(tmp_path / "tiny")
    ]
    number = f"{forbidden.epsilon:.6f}"
    for name in ("results.csv", "results.json", "report.md", "report.html"):
        text = (tmp_path / "tiny" / name).read_text()
        assert "void" in text, name
        assert name == "results.json" or number not in text, name
    row, other = rows_of(tmp_path)
    assert (row["epsilon"], row["epsilon_status"]) == ("", "void")
    assert (float(other["epsilon"]) <= 4.0, other["epsilon_status"]) == (True, "claimed")
    found = json.loads((tmp_path / "tiny" / "results.json").read_text())["rows"]
    assert (found[0]["epsilon"], found[1]["epsilon"]) == ("void", other_epsilon(found[1]))


def other_epsilon(row) -> float:
    assert isinstance(row["epsilon"], float)
    return row["epsilon"]


def test_memory_holds_a_run_too(run):
    done = run_suite(one_arm(), "memory://runs")
    assert done.failures == ()
    written = open_storage("memory://runs").read("tiny/results.csv").decode()
    (row,) = csv.DictReader(io.StringIO(written))
    assert row in rows_of(run[0])


@pytest.mark.slow  # two torchrun starts; what two processes train is in tests/training
def test_processes_share_one_training(tmp_path):
    suite = one_arm(
        processes=2,
        pool={"size": 2},
        leakage={"attacks": ("loss",)},
        training={"epochs": 1, "batch_size": 64, "lr": 0.05},
    )
    done = run_suite(suite, tmp_path)
    assert done.failures == ()
    (row,) = done.result.rows
    alone = run_suite(suite.model_copy(update={"processes": 1}), "memory://alone")
    (other,) = alone.result.rows
    # half batches of a network without BatchNorm add up to the same step, but for rounding
    assert row.accuracy.value == pytest.approx(other.accuracy.value, abs=0.02)
    assert row.accuracy.value > 0.5


def test_a_place_that_takes_no_files_is_one_clear_error_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    told = Told()
    with pytest.raises(StorageError, match="cannot make the folder"):
        run_suite(one_arm(), tmp_path / "file", engine=one_process(), progress=told)
    assert told.before == -1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": {"size": 2}}, r"leakage.attacks: LiRA was asked for on a pool of 2"),
        (
            {
                "epsilons": (4.0,),
                "audits": {},
                "private_training": {"epochs": 1, "grad_sample_mode": "ghost"},
            },
            "audits: grad_sample_mode is 'ghost'",
        ),
        ({"training": {"batch_size": 900, "epochs": 1}}, "take a smaller batch"),
        ({"datasets": ("digit",)}, r"unknown data set 'digit'.*did you mean 'digits'"),
        ({"models": ("lenett",)}, r"unknown model 'lenett'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_the_plan(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_suite(one_arm(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_student_interval_equals_scipy():
    from scipy import stats

    values = [0.91, 0.93, 0.88, 0.95]
    estimate = mean_with_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(np.mean(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_rows_are_what_was_measured_of_the_pools(run):
    from dpnorm.leakage import attack, memorization

    runs, done, _ = run
    pools = dict(run_pools(runs / "tiny"))
    trained = [row for row in done.result.rows if row.status == "trained"]
    assert len(pools) == len(trained)
    for (name, pool), row in zip(pools.items(), trained, strict=True):
        assert row.variant in name
        assert row.auc["lira"] == attack(pool, "lira").auc
        assert row.memorized == memorization(pool).outliers
        assert dataclasses.asdict(row.accuracy)["value"] == pytest.approx(pool.accuracy.mean())
