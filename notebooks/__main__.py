"""Runs the notebooks, which are kept as text, and writes them with what they print and draw.

    python -m notebooks [NAME ...] [--write]

Each runs in a fresh kernel of this Python, in a folder of its own, and goes to build/notebooks;
with --write also beside its text, for those who read it on a forge. Exit code 0: all of them ran.
1: a cell raised; its traceback is on stderr. 2: there is no notebook of that name.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import jupytext
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from dpnorm.files import replacing

HERE = Path(__file__).parent
BUILT = HERE.parent / "build" / "notebooks"
SECONDS = 600  # that one cell may take on a slow machine
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of tracebacks
FAILED = (CellExecutionError, CellTimeoutError, DeadKernelError)


def texts() -> dict[str, Path]:
    """The notebooks by name."""
    return {path.stem: path for path in sorted(HERE.glob("[0-9]*.py"))}


def executed(path: Path) -> Any:
    """The notebook with its outputs.

    The kernel is this Python, whatever kernels the user has installed. It reads no settings of the
    user's, listens on the loopback interface only, and uses one thread for arithmetic.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took longer than SECONDS.
        DeadKernelError: the kernel was killed.
    """
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # random ones would differ each time
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        kernel = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # leaves ipykernel's own
            connection_file=str(Path(folder, "kernel.json")),
            ip="127.0.0.1",
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=SECONDS,
            record_timing=False,
            coalesce_streams=True,  # when a line came is no part of the notebook
            # that the loopback is not encrypted is said at each start otherwise
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            resources={"metadata": {"path": str(work)}},
        )
        client.execute(env=_environment(folder), cleanup_kc=True)
    notebook.metadata.pop("language_info", None)  # the version of Python is none of the reader's
    return notebook


def _environment(folder: str) -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        **dict.fromkeys(threads, "1"),
        "PATH": commands,  # so that a cell finds the `dpnorm` command of this Python
        "IPYTHONDIR": str(Path(folder, "ipython")),
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str]) -> int:
    """Runs what was asked for, all of it by default; returns the exit code."""
    parser = _Parser(prog="python -m notebooks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--write", action="store_true", help="write them beside their text too")
    asked = parser.parse_args(arguments)
    known = texts()
    for name in asked.names:
        if name not in known:
            parser.error(f"there is no notebook {name!r}: take one of {', '.join(known)}")
    failed = False
    for name in dict.fromkeys(asked.names or known):
        started = time.perf_counter()
        try:
            notebook = executed(known[name])
        except FAILED as error:
            print(f"{name}: {_COLOUR.sub('', str(error))}", file=sys.stderr, flush=True)
            failed = True
            continue
        BUILT.mkdir(parents=True, exist_ok=True)
        for folder in (BUILT, *([HERE] if asked.write else [])):
            with replacing(folder / f"{name}.ipynb") as temporary:
                temporary.write_text(jupytext.writes(notebook, fmt="ipynb"), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
