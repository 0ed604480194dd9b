"""Tuning of the private training on synthetic digits, one setting after the other.

    python -m benchmarks.utility.tuning [STAGE ...]

Each stage varies what it names around the settings that the stages before it chose (START and the
constants below it), for `group` at epsilon 1 and 3, and prints the test accuracy. No record of
mnist5k or of any private data is looked at.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.utility.arms import Job, run
from benchmarks.utility.tables import mean_cell, print_table
from dpnorm.parallel import run_jobs

START: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 256,
    "lr": 1.0,
    "momentum": 0.0,
    "ema": 0.9,
    "zero_last_layer": True,
}
STAGES: dict[str, list[dict[str, Any]]] = {
    "batch size and learning rate": [
        *[{"batch_size": 128, "lr": lr} for lr in (0.5, 1.0)],
        *[{"batch_size": 256, "lr": lr} for lr in (1.0, 2.0)],
        *[{"batch_size": 512, "lr": lr} for lr in (2.0, 4.0)],
    ],
    "schedule": [{"lr": 2.0, "schedule": schedule} for schedule in ("linear", "cosine")],
    "momentum": [{"momentum": 0.9, "lr": lr} for lr in (0.1, 0.2)],
    "last layer": [{"zero_last_layer": False}],
    "average": [{"ema": ema} for ema in (0.0, 0.95)],
    "epochs": [{"epochs": 5}, {"epochs": 20}],
    "augmentation": [{"augment": "shift"}, {"augment": "shift", "views": 4, "epochs": 5}],
    "adamw": [{"optimizer": "adamw", "lr": lr} for lr in (2e-3, 5e-3)],
    "learning rate by epsilon": [
        *[{"epochs": 15, "lr": lr} for lr in (1.0, 2.0, 4.0)],
        {"epochs": 15, "batch_size": 128, "lr": 1.0},
    ],
    "last layer by epsilon": [
        {"epochs": 15, "lr": lr, "zero_last_layer": False} for lr in (1.0, 2.0)
    ],
}
EPSILONS = {"learning rate by epsilon": (8.0, 3.0, 1.0), "last layer by epsilon": (8.0, 3.0, 1.0)}


def jobs_of(
    changes: Iterable[dict[str, Any]], epsilons: Iterable[float], arm: str
) -> Iterator[Job]:
    """The trainings of a stage."""
    for change, epsilon in itertools.product(changes, epsilons):
        yield Job("synthetic", arm, epsilon, 0, START | change)


def main(names: list[str]) -> None:
    """Runs the stages and prints a table for each."""
    for name, changes in STAGES.items():
        if names and name not in names:
            continue
        epsilons = EPSILONS.get(name, (1.0, 3.0))
        jobs = list(jobs_of(changes, epsilons, "group"))
        results = dict(run_jobs(run, jobs))
        print(f"\n{name}\n")
        rows = []
        for change in changes:
            own = [
                (job, results[i]) for i, job in enumerate(jobs) if job.training == START | change
            ]
            cells = [
                mean_cell([found["accuracy"] for job, found in own if job.epsilon == epsilon])
                for epsilon in epsilons
            ]
            seconds = np.mean([found["seconds"] for _, found in own])
            words = ", ".join(f"{key} {value}" for key, value in change.items())
            rows.append([words, *cells, f"{seconds:.0f}"])
        titles = [f"epsilon {epsilon:g}" for epsilon in epsilons]
        print_table(["settings", *titles, "seconds"], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
