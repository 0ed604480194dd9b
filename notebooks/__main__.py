"""Runs the notebooks, which are kept as text, and writes them with what they print and draw.

    python -m notebooks [NAME ...] [--keep]

Each runs in a fresh kernel of this Python, in a folder of its own, and goes to build/notebooks;
with --keep also beside its text, for those who read it on a forge.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from dpnorm.files import replacing

HERE = Path(__file__).parent
BUILT = HERE.parent / "build" / "notebooks"
SECONDS = 900  # that one cell may take on a slow machine


def texts() -> dict[str, Path]:
    """The notebooks by name."""
    return {path.stem: path for path in sorted(HERE.glob("[0-9]*.py"))}


def executed(path: Path) -> Any:
    """The notebook with its outputs.

    Raises:
        CellExecutionError: a cell raised.
    """
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            # it listens on the loopback only, and says each time that it does not encrypt there
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata.pop("language_info", None)  # the version of Python is none of the reader's
    return notebook


def main(arguments: list[str]) -> int:
    """Runs what was asked for; 0 where all of it ran, 1 where a cell raised, 2 for misuse."""
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--keep", action="store_true", help="write them beside their text too")
    asked = parser.parse_args(arguments)
    known = texts()
    for name in asked.names:
        if name not in known:
            parser.error(f"there is no notebook {name!r}: take one of {', '.join(known)}")
    failed = False
    for name in asked.names or known:
        started = time.perf_counter()
        try:
            notebook = executed(known[name])
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        BUILT.mkdir(parents=True, exist_ok=True)
        for folder in (BUILT, *([HERE] if asked.keep else [])):
            with replacing(folder / f"{name}.ipynb") as temporary:
                temporary.write_text(jupytext.writes(notebook, fmt="ipynb"), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
