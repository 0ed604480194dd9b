"""A private step in every mode, of dpnorm and of stock Opacus, over the plain step.

    python benchmarks/step_cost.py [--threads N] [--rounds R] [NETWORK ...] > tables.md

In each round every kind of step is taken once on the same batch of the same network with GroupNorm,
one after the other, so that other work on the machine slows all of them; figures are medians over
the rounds. The step with private statistics is over a plain step with GroupNorm too. Memory is
the largest resident size of a process that takes six steps of one kind (Linux), less that of one
that takes plain ones.
"""

import argparse
import statistics
import sys
import time
import warnings
from multiprocessing import get_context

import torch

from dpnorm.benchmark.memory import peak_memory
from dpnorm.benchmark.speed import FULL, SUBJECTS
from dpnorm.benchmark.speed.comparisons import Prepared
from dpnorm.benchmark.speed.steps import OPACUS_MODES, Step, opacus_step, plain_step, private_step
from dpnorm.errors import DpnormError

OURS = ("lean", "hooks", "ghost")
PRIVATE_BATCH = "lean, private-batch"
WARM, SAMPLED = 2, 6


def kinds() -> list[str]:
    """The columns, after the plain step."""
    return [*OURS, PRIVATE_BATCH, *[f"Opacus, {mode}" for mode in OPACUS_MODES]]


def step_of(network: str, kind: str) -> Step:
    """A step of one kind, ready to be taken."""
    given = Prepared(SUBJECTS[network], FULL, torch.device("cpu"))
    x, y = given.x, given.y
    if kind == "plain":
        return plain_step(given.converted, x, y)
    if kind == PRIVATE_BATCH:
        return private_step(given.to("private-batch"), x, y, "lean")
    if kind in OURS:
        return private_step(given.converted, x, y, kind)
    return opacus_step(given.converted, x, y, kind.removeprefix("Opacus, "))


def ratios(network: str, rounds: int) -> dict[str, str]:
    """By kind of step, the median of the ratios to the plain step, and the time of that."""
    steps, found = {"plain": step_of(network, "plain")}, {}
    for kind in kinds():
        try:
            steps[kind] = step_of(network, kind)
        except DpnormError:  # it cannot train this network, which the table says
            found[kind] = "—"
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(WARM + rounds):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= WARM:
                times[kind].append(time.perf_counter() - started)
    for kind, own in times.items():
        pairs = zip(own, times["plain"], strict=True)
        found[kind] = f"{statistics.median(mine / plain for mine, plain in pairs):.2f}"
    found["plain"] = f"{1000 * statistics.median(times['plain']):.1f} ms"
    return found


def peak(network: str, kind: str, threads: int) -> int:
    """The largest resident size, in MiB, of this process while it takes steps of one kind."""
    quiet(threads)
    step = step_of(network, kind)
    with peak_memory() as found:
        for _ in range(SAMPLED):
            step()
    return (found.peak or 0) // 2**20


def memory(network: str, threads: int) -> dict[str, str]:
    """By kind of step, MiB above those of plain steps; each in a process of its own."""
    found: dict[str, int | None] = {}
    for kind in ["plain", *kinds()]:
        with get_context("spawn").Pool(1) as pool:
            try:
                found[kind] = pool.apply(peak, (network, kind, threads))
            except DpnormError:
                found[kind] = None
    plain = found.pop("plain") or 0
    return {k: "—" if size is None else f"{size - plain:+d}" for k, size in found.items()}


def table(columns: list[str], rows: dict[str, dict[str, str]]) -> str:
    """Markdown."""
    lines = ["| network | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {n} | " + " | ".join(row[c] for c in columns) + " |" for n, row in rows.items()]
    return "\n".join(lines)


def quiet(threads: int) -> None:
    """Sets the number of threads, and silences Opacus's advice."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")


def main() -> None:
    """Prints both tables; rows appear on stderr as they are found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(SUBJECTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    for name in asked.networks:
        if name not in SUBJECTS:
            parser.error(f"there is no network {name!r}: take some of {', '.join(SUBJECTS)}")
    quiet(asked.threads)
    print(f"Threads: {asked.threads}; rounds: {asked.rounds}; torch {torch.__version__}\n")
    timed, held = {}, {}
    for name in asked.networks:
        timed[SUBJECTS[name].described()] = found = ratios(name, asked.rounds)
        print(name, found, file=sys.stderr)
    print(table(["plain", *kinds()], timed), flush=True)
    for name in asked.networks:
        held[SUBJECTS[name].described()] = memory(name, asked.threads)
    print("\nMiB above a plain step:\n", table(kinds(), held), sep="\n")


if __name__ == "__main__":
    main()
