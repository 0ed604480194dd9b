import importlib.util
import math
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from dpnorm.arrays import arrays_of
from dpnorm.benchmark.arms import plan
from dpnorm.benchmark.cells import facts_of
from dpnorm.benchmark.code import code_versions
from dpnorm.benchmark.engines import on_ray, open_engine, ray_cluster
from dpnorm.benchmark.storage import open_storage
from dpnorm.benchmark.suite import Suite
from dpnorm.errors import InputError, MissingExtraError, StorageError
from tests.benchmark.ray_nodes import NODE, ROOT, NotedCell, Probe, one_node, power_off

pytestmark = [
    # not imported here: the engine does that in its own way
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    # it leaves files and sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TIMING = ("seconds", "peak_bytes")
SUITE = Suite(
    name="nodes",
    datasets=("digits",),
    models=("lenet",),
    variants=("group",),
    epsilons=(math.inf,),
    pool={"size": 6, "outliers": 10},
    training={"epochs": 4, "batch_size": 32, "lr": 0.05},
    leakage={"attacks": ("loss",)},
)


@pytest.fixture(scope="module")
def cluster():
    with one_node() as cluster:
        yield cluster


@pytest.fixture
def probe(tmp_path):
    def build(name, **how):
        return Probe(name, str(tmp_path), **how)

    return build


def computed(engine, folder, cells):
    outcomes = dict(engine.run(str(folder), cells))
    assert sorted(outcomes) == list(range(len(cells)))
    return [outcomes[index] for index in range(len(cells))]


def result_of(folder, cell):
    """The arrays of a finished cell, and its facts apart from timing."""
    arrays = arrays_of(open_storage(folder).read(cell.file), cell.name, ("facts",), "a cell")
    facts = facts_of(arrays)
    del arrays["facts"]
    return arrays, {name: value for name, value in facts.items() if name not in TIMING}


def wait_until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_computing(node, storage, cells):
    """Whether the node has begun a cell that is not finished."""
    begun = [note.rpartition("-")[2] for note in storage.names("begun") if node.node_id in note]
    return any(storage.read(cells[int(member)].file) is None for member in begun)


@pytest.mark.slow
def test_a_killed_node_loses_no_cell_and_changes_no_bit(cluster, tmp_path, monkeypatch):
    import ray

    victim = cluster.add_node(**NODE)
    (arm,) = plan(SUITE)
    cells = [NotedCell(**cell.model_dump()) for cell in arm.members]
    storage = open_storage(tmp_path / "ray")
    submitted = []
    submit = on_ray._Tasks._submit
    monkeypatch.setattr(
        on_ray._Tasks,
        "_submit",
        lambda tasks, index: (submitted.append(index), submit(tasks, index)),
    )
    outcomes = {}
    for index, outcome in open_engine("ray", address=cluster.address).run(storage.url, cells):
        outcomes[index] = outcome
        if len(outcomes) == 1:
            wait_until(lambda: is_computing(victim, storage, cells))
            power_off(cluster, victim)
    assert not ray.is_initialized()
    assert sorted(outcomes) == list(range(len(arm.members)))
    assert [outcome.error for outcome in outcomes.values()] == [None] * len(arm.members)
    assert len(submitted) > len(arm.members)

    computed(open_engine("local"), tmp_path / "local", arm.members)
    for cell in arm.members:
        found, facts = result_of(tmp_path / "ray", cell)
        wanted, wanted_facts = result_of(tmp_path / "local", cell)
        assert facts == wanted_facts
        assert found.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.slow
def test_lost_workers_are_tried_again_and_failures_are_told(
    cluster, probe, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(on_ray, "_GROWTH", 1.0)
    whole, once, ever, raising, wide = cells = [
        probe("whole"),
        probe("once", deaths=1),
        probe("ever", deaths=99),
        probe("raising", error=ZeroDivisionError("no such number")),
        probe("wide", processes=2),
    ]
    outcomes = computed(open_engine("ray", address=cluster.address), tmp_path / "runs", cells)
    errors = [outcome.error for outcome in outcomes]
    assert errors[:2] == [None, None]
    assert [cell.tries() for cell in (whole, once, ever)] == [1, 2, on_ray.TRIES]
    assert "was lost 3 times" in errors[2]
    assert errors[3] == "ZeroDivisionError: no such number"
    assert outcomes[3].trace.startswith("Traceback")
    assert raising.tries() == 1
    assert "needs a node with 2 CPUs" in errors[4]
    assert wide.tries() == 0
    assert result_of(tmp_path / "runs", whole)[1]["threads"] == 1
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_what_the_storage_refuses_is_raised_and_the_rest_given_up(cluster, probe, tmp_path):
    import ray

    (tmp_path / "runs").write_text("a file where a folder should be")
    cells = [probe(f"cell{number}") for number in range(40)]
    engine = open_engine("ray", address=cluster.address, workers=1)
    with pytest.raises(StorageError, match="cells"):
        computed(engine, tmp_path / "runs", cells)
    assert sum(cell.tries() for cell in cells) == 1
    assert not ray.is_initialized()


def test_a_node_with_other_code_refuses(probe, tmp_path):
    cell = probe("cell")
    versions = code_versions(cell.code_parts())
    outcome = on_ray._task(str(tmp_path), cell, versions | {"torch": "1.0"})
    assert "has another torch than the machine that started the run" in outcome.error
    assert cell.tries() == 0


def test_storage_in_memory_is_refused(probe):
    with pytest.raises(InputError, match=r"memory://runs.*take a folder or an object store"):
        computed(open_engine("ray"), "memory://runs", [probe("cell")])


def test_no_cells_need_no_cluster(tmp_path):
    assert list(open_engine("ray").run(str(tmp_path), [])) == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:x", ""])
def test_a_wrong_address_is_one_clear_error(address):
    with pytest.raises(InputError, match="HOST:PORT of a running Ray cluster") as raised:
        open_engine("ray", address=address)
    assert repr(address) in str(raised.value)


def test_something_else_at_the_address_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(ray_cluster, "_CONNECT", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="did not connect in 3 s"):
            open_engine("ray", address=address)


def test_ray_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dpnorm\[ray\]'"):
        open_engine("ray")


TINY = """
name = "tiny"
datasets = ["digits"]
models = ["lenet"]
variants = ["group"]
epsilons = [inf, 4.0]
pool = {size = 2, outliers = 10}
training = {epochs = 1, batch_size = 64, lr = 0.05}
private_training = {epochs = 1, batch_size = 128, lr = 0.5, momentum = 0.0}
privacy = {delta = 1e-4}
leakage = {attacks = ["loss"]}
"""


def bench(tmp_path, engine):
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "dpnorm", "bench", "run", str(tmp_path / "tiny.toml")]
    return subprocess.Popen(
        [*command, "--runs", str(tmp_path / engine), "--engine", engine],
        cwd=ROOT,
        env=os.environ | {"HOME": str(tmp_path)},  # Ray leaves a file there
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell lets what it starts in the background ignore Ctrl-C, and so would this
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_a_run_on_a_local_cluster_gives_the_same_table(tmp_path):
    said = {}
    for engine in ("local", "ray"):
        running = bench(tmp_path, engine)
        try:
            said[engine] = running.communicate(timeout=140)
        finally:
            running.kill()
        assert running.returncode == 0, said[engine]
    tables = [(tmp_path / engine / "tiny" / "results.csv").read_bytes() for engine in said]
    assert tables[0] == tables[1]
    assert [len(text.splitlines()) for text in said["ray"]] == [
        len(text.splitlines()) for text in said["local"]
    ]


@pytest.mark.slow
def test_ctrl_c_ends_a_local_cluster(tmp_path):
    running = bench(tmp_path, "ray")
    try:
        wait_until(lambda: list(tmp_path.glob("ray/cells/*.npz")), seconds=120)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "Traceback" not in said
