"""Two runs at once, and a worker that is lost: nobody is hurt."""

from dpnorm.benchmark import run_suite
from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.engines.local import LocalEngine
from tests.benchmark.deadly import DeadlyCell
from tests.benchmark.suites import one_arm, written_suite
from tests.benchmark.test_killed import SUITE, begin


def test_two_runs_in_one_folder_do_not_hurt_each_other(tmp_path):
    suite = written_suite(SUITE, tmp_path)
    runs = tmp_path / "runs"
    both = [begin(suite, runs) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    run_suite(SUITE, tmp_path / "alone")
    mine = (runs / "killed" / "results.csv").read_bytes()
    assert mine == (tmp_path / "alone" / "killed" / "results.csv").read_bytes()
    assert not [p for p in runs.rglob(".*") if p.is_file()]


def test_a_cell_whose_process_is_killed_fails_alone(tmp_path):
    suite = one_arm(variants=("none",))
    (arm,) = plan(suite)
    cells = [arm.members[0], DeadlyCell(**arm.members[1].model_dump()), arm.members[2]]
    found = dict(LocalEngine(2).run(str(tmp_path), cells))
    assert found[0].error is None
    assert found[2].error is None
    assert found[1].error == "its process was killed 3 times (memory?)"
    assert run_suite(suite, tmp_path).failures == ()  # the next run tries again
