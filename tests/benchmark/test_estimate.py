import pytest

from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.estimate import estimate
from dpnorm.benchmark.run import run_suite
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.suite import load_suite
from tests.benchmark.suites import tiny


@pytest.fixture(scope="module")
def suite():
    # long enough that a step counts more than the start of a training
    return tiny(
        variants=("batch",),
        leakage={"attacks": ("loss",)},
        training={"epochs": 5, "batch_size": 64, "lr": 0.05},
    )


def test_cells_disk_and_time_are_about_what_the_run_takes(suite, tmp_path):
    storage, arms, tried = open_storage(tmp_path), plan(suite), []
    before = estimate("tiny", arms, storage, workers=1, progress=tried.append)
    assert (before.cells, before.missing) == (4, 4)
    assert tried == [f"trying {arm.label}" for arm in arms if not arm.refused]
    assert before.arms[1].refused == arms[1].summary != ""
    assert not list(tmp_path.iterdir())  # nothing is written
    run_suite(suite, tmp_path)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "cells").iterdir())
    assert on_disk / 3 < before.bytes < 3 * on_disk
    after = estimate("tiny", arms, storage, workers=1)
    assert (after.cells, after.missing, after.seconds) == (4, 0, 0)
    text = str(before)
    assert "tiny: 4 cells, 4 to compute: about" in text
    assert before.to_dict()["missing"] == 4


def test_the_time_is_that_of_steps_models_and_workers(suite, tmp_path, monkeypatch):
    # a step takes half a second, a look at a record a millisecond
    monkeypatch.setattr("dpnorm.benchmark.estimate._trial", lambda cell, data: (0.5, 0.001))
    storage = open_storage(tmp_path)

    def seconds(changes, workers=1):
        arms = plan(suite.changed({"variants": ["none"], "epsilons": [float("inf")]} | changes))
        return estimate("tiny", arms, storage, workers=workers).seconds

    steps = 11  # an epoch of half of 1,297 records and 20 outliers in batches of 64
    data = plan(suite)[0].members[0].data()
    looks = 0.001 * (len(data.train) + len(data.test))
    one = 1.15 * (looks + 0.5 * steps * 5)
    assert seconds({}) == pytest.approx(3 * one)
    assert seconds({"pool": {"size": 12}}) == pytest.approx(12 * one)
    assert seconds({}, workers=4) == pytest.approx(3 * one / 4)
    longer = 1.15 * (looks + 0.5 * steps * 50)
    assert seconds({"training": {"epochs": 50}}) == pytest.approx(3 * longer)


@pytest.mark.parametrize("name", ["standard", "full", "memorization"])
def test_shipped_suites_can_be_planned(name):
    # every variant of every model is built, judged and calibrated, and each arm has its cells
    suite = load_suite(name)
    arms = plan(suite)
    refused = [arm for arm in arms if arm.refused]
    assert {arm.variant for arm in refused} <= {"batch"}
    sizes = {len(arm.members) for arm in arms if not arm.refused}
    assert sizes == {suite.pool.size}
    names = [cell.name for arm in arms for cell in arm.cells()]
    assert len(set(names)) == len(names)
    assert all((arm.audit is not None) == (suite.audits is not None) for arm in arms
               if not arm.refused and arm.members[0].privacy is not None)  # fmt: skip


@pytest.mark.slow
def test_cifar10_is_planned_and_its_first_cell_runs_on_data_of_that_shape(tmp_path, monkeypatch):
    from tests.data.test_cifar10 import write

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cifar-10-batches-bin", batches=5, records=100)
    # a few images instead of 50,000, and so a batch that they can fill
    small = ["pool.outliers=10", "private_training.batch_size=64", "training.epochs=1"]
    suite = load_suite("cifar10", [*small, "private_training.epochs=1"])
    arms = plan(suite)
    assert [arm.variant for arm in arms if arm.refused] == ["batch", "batch"]
    first = arms[0].members[0]
    assert first.data().shape == (3, 32, 32)
    member = first.train()
    assert member.logits.shape == (450, 1, 10)
