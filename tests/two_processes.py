"""Two processes of this machine that meet over gloo, bounded in time, and what they leave."""

import faulthandler
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed

ROOT = Path(__file__).parents[1]
WORLD = 2
SILENCE = timedelta(seconds=120)  # that a process waits for the other one

Rank = tuple[dict[str, torch.Tensor], dict[str, Any]]


def run_both(module: str, folder: Path, limit: float) -> list[Rank]:
    """Runs `python -m MODULE RANK FOLDER` twice; ({name: tensor}, facts) of each process.

    Args:
        module: whose processes call `meeting` and `leave`.
        folder: where they meet.
        limit: seconds that they may live.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    processes: list[subprocess.Popen] = []
    end = time.monotonic() + limit
    try:
        for rank in range(WORLD):
            with open(folder / f"log{rank}", "w") as log:
                command = [sys.executable, "-m", module, str(rank), str(folder)]
                processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
                )
        while time.monotonic() < end and not all(p.poll() == 0 for p in processes):
            if any(p.poll() for p in processes):
                time.sleep(2)  # the other one finds out by itself, and says what it was at
                break
            time.sleep(0.1)
    finally:
        codes = [p.poll() for p in processes]
        for process in processes:
            process.kill()
            process.wait()
    if codes != [0] * WORLD:
        logs = [(folder / f"log{rank}").read_text() for rank in range(WORLD)]
        pytest.fail(f"the processes ended with {codes} (None: killed)\n\n" + "\n\n".join(logs))
    return [
        (
            load_file(folder / f"rank{rank}.safetensors"),
            json.loads((folder / f"rank{rank}.json").read_text()),
        )
        for rank in range(WORLD)
    ]


def of(rank: Rank, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one scenario on one rank."""
    tensors, _ = rank
    found = {key.partition("/"): tensor for key, tensor in tensors.items()}
    return {key: tensor for (scenario, _, key), tensor in found.items() if scenario == name}


@contextmanager
def meeting(rank: int, folder: Path, limit: float) -> Iterator[None]:
    """In a process: the two can talk to each other inside; warnings are errors."""
    faulthandler.dump_traceback_later(limit, exit=True)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Full backward hook is firing")
    warnings.filterwarnings("ignore", "Secure RNG turned off")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=WORLD,
        timeout=SILENCE,
    )
    yield
    distributed.destroy_process_group()


def leave(
    rank: int, folder: Path, tensors: dict[str, dict[str, torch.Tensor]], facts: dict[str, Any]
) -> None:
    """In a process: writes what it came to, scenario by scenario."""
    flat = {
        f"{name}/{key}": t.contiguous() for name, own in tensors.items() for key, t in own.items()
    }
    save_file(flat, folder / f"rank{rank}.safetensors")
    (folder / f"rank{rank}.json").write_text(json.dumps(facts))
