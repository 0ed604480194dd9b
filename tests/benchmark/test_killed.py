"""A run that is killed at any instant goes on where it was."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpnorm.benchmark import shipped_suites
from tests.benchmark.suites import one_arm, written_suite

ROOT = Path(__file__).parents[2]
SUITE = one_arm(name="killed", variants=("group", "none"))


def begin(suite: Path, runs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dpnorm", "bench", "run", str(suite), "--runs", str(runs)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def whole_cells(runs: Path) -> dict[str, int]:
    return {f.name: f.stat().st_mtime_ns for f in runs.glob("cells/[!.]*")}


def kill_at_random(suite: Path, runs: Path, kills: int, whole: float, seed: int) -> int:
    """Kills a run at random moments, each time after it went on; how many did hit it."""
    moments = random.Random(seed)
    hit = 0
    for _ in range(kills):
        before = whole_cells(runs)
        process = begin(suite, runs)
        time.sleep(moments.uniform(0.1, 1.0) * whole)
        hit += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stderr.close()
        after = whole_cells(runs)
        assert before.items() <= after.items()  # what was finished was not computed again
    return hit


def go_on_and_compare(suite: Path, runs: Path, undisturbed: Path, limit: float) -> None:
    time.sleep(2.5)  # the youngest of what was left behind is old enough to be told from others'
    before = whole_cells(runs)
    process = begin(suite, runs)
    _, said = process.communicate(timeout=limit)
    assert process.returncode == 0, said
    assert before.items() <= whole_cells(runs).items()
    for name in ("results.csv", "results.parquet"):
        mine = (runs / suite.stem / name).read_bytes()
        assert mine == (undisturbed / suite.stem / name).read_bytes()
    assert not [p for p in runs.rglob(".*") if p.is_file()]
    assert len(whole_cells(runs)) == len(whole_cells(undisturbed))


def run_undisturbed(suite: Path, runs: Path, limit: float) -> float:
    """Seconds that a whole run takes."""
    started = time.monotonic()
    process = begin(suite, runs)
    _, said = process.communicate(timeout=limit)
    assert process.returncode == 0, said
    return time.monotonic() - started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    suite = written_suite(SUITE, runs)
    return suite, runs, run_undisturbed(suite, runs, 600)


def test_five_kills_at_random_moments_change_nothing(undisturbed, tmp_path):
    suite, runs, whole = undisturbed
    assert kill_at_random(suite, tmp_path, 5, whole * 0.8, seed=1) >= 1
    go_on_and_compare(suite, tmp_path, runs, 600)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_fifty_kills_of_quick_at_random_moments_change_nothing(tmp_path):
    suite, runs = shipped_suites()["quick"], tmp_path / "undisturbed"
    whole = run_undisturbed(suite, runs, 1800)
    # Most cells are finished when the last kill comes: each must hit a run that has work to do
    hit = kill_at_random(suite, tmp_path / "killed", 50, min(60.0, whole / 3), seed=2)
    assert hit >= 40
    go_on_and_compare(suite, tmp_path / "killed", runs, 1800)


def test_no_worker_outlives_a_killed_run(undisturbed, tmp_path):
    suite, _, whole = undisturbed
    process = begin(suite, tmp_path)
    time.sleep(whole * 0.5)
    session = os.getsid(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stderr.close()
    deadline = time.monotonic() + 60  # a worker ends when it sees the end of its parent
    while time.monotonic() < deadline and _living(session):
        time.sleep(0.2)
    assert not _living(session)


def _living(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found
