"""Ray nodes on the loopback interface, and cells that fail in several ways on them."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dpnorm.benchmark.cells import MemberCell
from dpnorm.benchmark.engines.ray_cluster import import_ray

ROOT = Path(__file__).parents[2]
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
# a dead node is noticed within seconds
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000}


@contextlib.contextmanager
def one_node() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with one node of one CPU, to which `NODE` adds others.

    Its processes end with this context, and with this process if that is killed.
    """
    import_ray(loopback=True)
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets need a short path
    (folder / "ray").mkdir()  # where Cluster notes its address, and makes no folder for it
    seen = {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}  # workers must find this module
    try:
        with mock.patch.dict(os.environ, seen):
            head = NODE | {"include_dashboard": False, "temp_dir": str(folder / "ray")}
            head |= {"_system_config": QUICK}
            cluster = Cluster(initialize_head=True, shutdown_at_exit=True, head_node_args=head)
            try:
                yield cluster
            finally:
                cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def power_off(cluster: Any, node: Any) -> None:
    """Ends a node and its workers at one instant; left alone, these would end what they do."""
    raylet = node.all_processes["raylet"][0].process.pid
    workers = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    for worker in workers:
        os.kill(int(worker), signal.SIGSTOP)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)


@dataclass(frozen=True)
class Probe:
    """A cell that writes how often it began; it dies or fails as it is told.

    Attributes:
        name: of the cell.
        folder: where its tries are counted.
        deaths: how many tries kill their process.
        error: what it raises.
        processes: as of a cell.
    """

    name: str
    folder: str
    deaths: int = 0
    error: Exception | None = None
    processes: int = 1

    @property
    def file(self) -> str:
        return f"cells/{self.name}.npz"

    def describe(self) -> str:
        return self.name

    def code_parts(self) -> tuple[str, ...]:
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name}

    def tries(self) -> int:
        return len(list(Path(self.folder).glob(f"{self.name}-*")))

    def compute(self, storage: Any) -> dict[str, Any]:
        tried = self.tries()
        (Path(self.folder) / f"{self.name}-{tried}").touch()
        if tried < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error is not None:
            raise self.error
        import torch

        facts = f'{{"threads": {torch.get_num_threads()}}}'
        return {"facts": np.frombuffer(facts.encode(), dtype=np.uint8)}


class NotedCell(MemberCell):
    """A cell that notes on which node it began, and goes on when two nodes have begun one."""

    def compute(self, storage):
        import ray

        storage.write(f"begun/{ray.get_runtime_context().get_node_id()}-{self.member}", b"")
        end = time.monotonic() + 90
        while len({note.split("-")[0] for note in storage.names("begun")}) < 2:
            assert time.monotonic() < end, "the other node did not begin in time"
            time.sleep(0.05)
        return super().compute(storage)
