"""One member, trained by several processes together: torchrun, and Opacus's DPDDP."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpnorm.errors import InputError
from dpnorm.leakage import Member
from dpnorm.leakage.member_file import load_member, save_member

if TYPE_CHECKING:
    from dpnorm.benchmark.cells import MemberCell

_TAIL = 20  # lines of what torchrun says that are told


def train_together(cell: "MemberCell") -> Member:
    """The member of a cell, whose training `cell.processes` processes of this machine share.

    Raises:
        InputError: a process failed, with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="dpnorm-") as folder:
        task, result = Path(folder) / "cell.json", Path(folder) / "member.npz"
        task.write_text(json.dumps(cell.model_dump(mode="json")), encoding="utf-8")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        done = subprocess.run(
            [*launcher, f"--nproc-per-node={cell.processes}", "-m", __name__, task, result],
            capture_output=True,
            text=True,
        )
        if done.returncode or not result.is_file():
            said = "\n".join(done.stderr.strip().splitlines()[-_TAIL:])
            raise InputError(f"{cell.processes} processes together failed: {said}")
        return load_member(result)


def main() -> None:
    """What each of the processes runs: CELL.json RESULT.npz."""
    import torch
    import torch.distributed as dist

    from dpnorm.benchmark.cells import MemberCell

    task, result = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        cell = MemberCell(**json.loads(task.read_text(encoding="utf-8")))
        member = cell.train()
        if dist.get_rank() == 0:
            save_member(result, member)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
