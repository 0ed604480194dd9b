"""Seconds and peak memory of every attack on a large pool, and against plain loops on a small one.

    python benchmarks/attack_speed.py [--models M] [--records N] [--summary] > table.md

Each attack on the large pool runs in a process of its own. Its seconds are those of `attack`; its
peak memory is that of the whole process, interpreter, libraries and pool included. The loops
(`reference_attacks.py`) and the package then take turns on the same small pool, with one thread.
`--summary` also times `MembershipScores.summary` with its intervals.
"""

import argparse
import resource
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import torch
from reference_attacks import ATTACKS

from dpnorm.leakage import MembershipScores, Pool, attack, draw_membership

CLASSES = 10
SMALL = 32, 500
GIB = 2**20  # ru_maxrss counts KiB

MODES: list[tuple[str, dict[str, object]]] = [
    ("loss", {}),
    ("calibrated", {"shadows": "all"}),
    ("calibrated", {"shadows": "out"}),
    ("lira", {"mode": "online", "variance": "fixed"}),
    ("lira", {"mode": "online", "variance": "per-example"}),
    ("lira", {"mode": "offline", "variance": "fixed"}),
    ("lira", {"mode": "offline", "variance": "per-example"}),
    ("rmia", {"mode": "online"}),
    ("rmia", {"mode": "offline", "a": 0.3}),
    ("rmia", {"mode": "offline"}),
    ("bavaria", {}),
]


def synthetic_pool(models: int, records: int) -> Pool:
    """Standard normal logits of one view; the label's is 3 higher, and 4 in a model that saw it."""
    generator = np.random.default_rng([91, models, records])
    keep = draw_membership(records, models, 0)
    labels = generator.integers(CLASSES, size=records)
    logits = np.empty((models, records, 1, CLASSES), dtype=np.float32)
    for m in range(models):
        generator.standard_normal(dtype=np.float32, out=logits[m])
        logits[m, np.arange(records), 0, labels] += 3 + keep[m]
    return Pool(keep, logits, labels, np.arange(records) % 10 == 0)


def called(name: str, options: dict[str, object]) -> str:
    """The attack as the table names it."""
    if name == "rmia" and options["mode"] == "offline":
        options = {"mode": "offline", "a": options.get("a", "tuned")}
    values = [f"a {v}" if key == "a" else str(v) for key, v in options.items()]
    return ", ".join([name, *values])


def seconds_of(pool: Pool, name: str, options: dict[str, object]) -> tuple[float, MembershipScores]:
    start = time.perf_counter()
    scores = attack(pool, name, **options)
    return time.perf_counter() - start, scores


def alone(answers: Connection, size: tuple[int, int], case: int | None) -> None:
    """In its own process: sends the seconds and the peak GiB of one attack, or of the summary."""
    pool = synthetic_pool(*size)
    name, options = MODES[0 if case is None else case]
    seconds, scores = seconds_of(pool, name, options)
    if case is None:
        start = time.perf_counter()
        scores.summary(pool.labels)
        seconds = time.perf_counter() - start
    answers.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB))


def measure(size: tuple[int, int], case: int | None) -> tuple[float, float]:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=alone, args=(theirs, size, case))
    process.start()
    theirs.close()
    seconds, peak = ours.recv()
    process.join()
    return seconds, peak


def large(size: tuple[int, int], summary: bool) -> None:
    print(f"{size[0]} models, {size[1]:,} records, {CLASSES} classes, 1 view:\n")
    print("| attack | seconds | peak, GiB |\n|---|---:|---:|")
    found = []
    for case, (name, options) in enumerate(MODES):
        found.append(measure(size, case))
        seconds, peak = found[-1]
        print(f"| {called(name, options)} | {seconds:.1f} | {peak:.2f} |", flush=True)
        print(f"{called(name, options)} done", file=sys.stderr)
    total, peak = sum(s for s, _ in found), max(p for _, p in found)
    print(f"| all of them | {total:.1f} | {peak:.2f} |", flush=True)
    if summary:
        seconds, peak = measure(size, None)
        print(f"| summary of one, with its intervals | {seconds:.1f} | {peak:.2f} |")


def against_loops() -> None:
    pool = synthetic_pool(*SMALL)
    print(f"\n{SMALL[0]} models, {SMALL[1]} records, against a plain loop over the targets:\n")
    print("| attack | loop, s | dpnorm, s | ratio |\n|---|---:|---:|---:|")
    for name, options in MODES:
        seconds_of(pool, name, options)  # the first call imports
        start = time.perf_counter()
        expected = ATTACKS[name](pool, **options)
        loop = time.perf_counter() - start
        times, scores = zip(*(seconds_of(pool, name, options) for _ in range(5)), strict=True)
        np.testing.assert_allclose(scores[0].scores, expected, rtol=1e-6, atol=1e-6)
        quick = float(np.median(times))
        label = called(name, options)
        print(f"| {label} | {loop:.2f} | {quick:.4f} | {loop / quick:.0f} |", flush=True)
        print(f"{label} against its loop done", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=256)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--summary", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    large((asked.models, asked.records), asked.summary)
    against_loops()


if __name__ == "__main__":
    main()
