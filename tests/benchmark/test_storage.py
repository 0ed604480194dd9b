import os
import subprocess
import sys
import time

import fsspec
import pytest

from dpnorm.benchmark.storage import LocalStorage, open_storage
from dpnorm.errors import InputError, StorageError


@pytest.fixture(params=["path", "file", "memory"])
def storage(request, tmp_path):
    places = {"path": tmp_path, "file": f"file://{tmp_path}", "memory": "memory://runs/here"}
    yield open_storage(places[request.param])
    fsspec.filesystem("memory").store.clear()


def test_what_is_written_is_read_in_every_place(storage):
    assert storage.read("cells/a.npz") is None
    assert storage.names("cells") == []
    storage.write("cells/b.npz", b"two")
    storage.write("cells/a.npz", b"one")
    storage.write("cells/a.npz", b"new")
    assert storage.names("cells") == ["cells/a.npz", "cells/b.npz"]
    again = open_storage(storage.url)
    assert (again.read("cells/a.npz"), again.read("cells/b.npz")) == (b"new", b"two")
    storage.remove("cells/a.npz")
    storage.remove("cells/a.npz")
    assert again.names("cells") == ["cells/b.npz"]
    storage.sweep()
    assert again.read("cells/b.npz") == b"two"


def test_only_memory_is_seen_by_this_process_alone(tmp_path):
    assert open_storage(tmp_path).shared
    assert not open_storage("memory://runs").shared


def test_an_unknown_protocol_is_one_clear_error():
    with pytest.raises(InputError, match="'nowhere://runs' cannot be opened"):
        open_storage("nowhere://runs")


def test_a_file_in_the_way_is_one_clear_error(tmp_path):
    (tmp_path / "cells").write_text("in the way")
    with pytest.raises(StorageError, match="cannot make the folder"):
        open_storage(tmp_path).write("cells/a.npz", b"one")
    assert (tmp_path / "cells").read_text() == "in the way"


WRITING = """
import os, pathlib, sys, time
from dpnorm.benchmark import storage
def fsync(handle):  # the file is written, and not renamed yet
    print("writing", flush=True)
    time.sleep(60)
os.fsync = fsync
storage.LocalStorage(pathlib.Path(sys.argv[1])).write("cells/b.npz", b"two")
"""


def test_sweeping_takes_what_a_killed_writer_left_and_not_what_is_being_written(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("cells/a.npz", b"one")
    writer = subprocess.Popen([sys.executable, "-c", WRITING, tmp_path], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline()
        (half,) = (tmp_path / "cells").glob(".*")
        os.utime(half, (time.time() - 100,) * 2)
        storage.sweep()
        assert half.exists()  # somebody has it
    finally:
        writer.kill()
        writer.wait(10)
        writer.stdout.close()
    os.utime(half)
    storage.sweep()
    assert half.exists()  # too young to tell
    os.utime(half, (time.time() - 100,) * 2)
    storage.sweep()
    assert not half.exists()
    assert storage.names("cells") == ["cells/a.npz"]


def test_sweeping_leaves_alone_what_lies_beside_the_runs(tmp_path):
    # --runs may be a folder of other things: their hidden files are nobody's business
    for place in (tmp_path, tmp_path / "thesis", tmp_path / "mine"):
        place.mkdir(exist_ok=True)
        (place / ".film.part").write_text("half of a download")
        os.utime(place / ".film.part", (time.time() - 100,) * 2)
    LocalStorage(tmp_path).write("mine/run.json", b"{}")
    LocalStorage(tmp_path).sweep()
    assert (tmp_path / ".film.part").exists()
    assert (tmp_path / "thesis" / ".film.part").exists()
    assert not (tmp_path / "mine" / ".film.part").exists()
