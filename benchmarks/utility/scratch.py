"""Private training of lenet from random weights on mnist5k: what each variant reaches.

    python -m benchmarks.utility.scratch [--workers N] [ARM ...]

Mean and standard error of the test accuracy over three seeds at epsilon 1, 3 and 8 (delta 1e-5,
4,000 records), for every variant that is safe under DP-SGD and for Opacus's ModuleValidator.fix.
The settings are the defaults of `TrainConfig`, which benchmarks/utility/tuning.py found on
synthetic digits; each arm has the learning rate that did best there out of RATES, alike for all.
"""

import argparse
import itertools

import numpy as np

from benchmarks.utility.arms import ARMS, Job, run
from benchmarks.utility.tables import mean_cell, print_table
from dpnorm.parallel import run_jobs

EPSILONS = (1.0, 3.0, 8.0)
SEEDS = (0, 1, 2)
TUNED_AT = 3.0
RATES = (0.5, 1.0, 2.0)


def tune(arms: list[str], workers: int | None) -> dict[str, float]:
    """The learning rate of each arm, by accuracy on synthetic digits; prints the table."""
    jobs = [Job("synthetic", arm, TUNED_AT, 0, {"lr": lr}) for arm in arms for lr in RATES]
    results = dict(run_jobs(run, jobs, workers=workers))
    by_arm: dict[str, dict[float, float]] = {arm: {} for arm in arms}
    for number, job in enumerate(jobs):
        by_arm[job.arm][job.training["lr"]] = results[number]["accuracy"]
    rows = [[arm, *[f"{100 * by_arm[arm][lr]:.1f}" for lr in RATES]] for arm in arms]
    print(f"\nTuning on synthetic digits at epsilon {TUNED_AT:g}, by learning rate\n")
    print_table(["variant", *[f"{lr:g}" for lr in RATES]], rows)
    return {arm: max(RATES, key=lambda lr: by_arm[arm][lr]) for arm in arms}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int)
    parser.add_argument("arms", nargs="*", default=ARMS)
    given = parser.parse_args()
    arms = list(given.arms)
    rates = tune(arms, given.workers)
    jobs = [
        Job("mnist5k", arm, epsilon, seed, {"lr": rates[arm]})
        for seed, epsilon, arm in itertools.product(SEEDS, EPSILONS, arms)
    ]
    results = dict(run_jobs(run, jobs, workers=given.workers))
    cells: dict[tuple[str, float], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for number, job in enumerate(jobs):
        cells.setdefault((job.arm, job.epsilon), []).append(results[number]["accuracy"])
        seconds.setdefault(job.arm, []).append(results[number]["seconds"])
    rows = [
        [
            arm,
            f"{rates[arm]:g}",
            *[mean_cell(cells[arm, epsilon]) for epsilon in EPSILONS],
            f"{np.mean(seconds[arm]):.0f}",
        ]
        for arm in arms
    ]
    print("\nmnist5k, lenet from random weights\n")
    titles = [f"epsilon {epsilon:g}" for epsilon in EPSILONS]
    print_table(["variant", "lr", *titles, "seconds a training"], rows)


if __name__ == "__main__":
    main()
