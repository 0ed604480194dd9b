"""A disk that is full or may not be written to: a message, nothing lost, and the run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark.suites import one_arm, written_suite

ROOT = Path(__file__).parents[2]
MEMBERS = 3

# A namespace of its own, where anybody may mount, and which takes its mounts along when it ends.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]

SCRIPT = """
import contextlib, shutil, subprocess, sys
from pathlib import Path
from dpnorm.cli.main import main

suite, runs, seen = sys.argv[1:]

def mount(*arguments):
    subprocess.run(["mount", *arguments, runs], check=True)

def attempt(name):
    sys.argv = ["dpnorm", "bench", "run", suite, "--runs", runs]
    with (Path(seen) / f"{name}.err").open("w") as said, contextlib.redirect_stderr(said):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    (Path(seen) / f"{name}.exit").write_text(str(code))
    shutil.copytree(runs, Path(seen) / name)

mount("-t", "tmpfs", "-o", "ro,size=120k", "tmpfs")
attempt("read-only")
mount("-o", "remount,rw")
attempt("no-room-for-two-members")
mount("-o", "remount,size=300k")
attempt("no-room-for-the-report")
mount("-o", "remount,size=50m")
attempt("enough")
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Of each run what it said, its exit code and a copy of its folder."""
    folder = tmp_path_factory.mktemp("disk")
    runs, seen = folder / "runs", folder / "seen"
    runs.mkdir()
    seen.mkdir()
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a system that lets this user make a mount namespace (unshare --user)")
    suite = written_suite(one_arm(name="filled"), folder)
    run = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", SCRIPT, suite, runs, seen],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    return seen


def ended(seen: Path, name: str) -> tuple[int, str]:
    """The exit code, and the last line that was said."""
    said = (seen / f"{name}.err").read_text()
    assert "Traceback" not in said
    return int((seen / f"{name}.exit").read_text()), said.splitlines()[-1]


def cells(seen: Path, name: str) -> dict[str, tuple[int, bytes]]:
    """The time and content of each."""
    found = (seen / name).glob("cells/*")
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def test_a_folder_that_is_read_only_is_said_before_anything_is_trained(seen):
    code, last = ended(seen, "read-only")
    assert code == 2
    assert last.startswith("dpnorm: cannot make the folder")
    assert "Read-only file system" in last
    assert "--runs" in last


@pytest.mark.parametrize("name", ["no-room-for-two-members", "no-room-for-the-report"])
def test_a_full_disk_ends_the_run_with_one_line_and_no_half_of_a_file(seen, name):
    code, last = ended(seen, name)
    assert code == 2
    assert last.startswith("dpnorm: cannot write")
    assert "No space left on device" in last
    assert not [file for file in (seen / name).rglob(".*") if file.is_file()]


def test_with_room_the_run_goes_on_from_what_was_finished(seen):
    first, second = (cells(seen, f"no-room-for-{what}") for what in ("two-members", "the-report"))
    assert len(first) == 1
    assert len(second) == MEMBERS + 1  # and what is measured of them
    code, _ = ended(seen, "enough")
    assert code == 0
    assert first.items() <= second.items()
    assert cells(seen, "enough") == second
    assert (seen / "enough" / "filled" / "report.html").stat().st_size > 0
