"""Private training of lenet from random weights on mnist5k: what each variant reaches.

    python -m benchmarks.utility.scratch [--workers N] [ARM ...]

Mean and standard error of the test accuracy over three seeds at epsilon 1, 3 and 8 (delta 1e-5,
4,000 records), for every variant that is safe under DP-SGD and for Opacus's ModuleValidator.fix.
The settings are the defaults of `TrainConfig`, which benchmarks/utility/tuning.py found on
synthetic digits; each arm has the share of the default learning rate that did best there, out of
FACTORS, alike for all. The last row is Opacus's fix with the settings of Opacus's own MNIST example
(examples/mnist.py: batches of 64, 10 epochs, learning rate 0.1, no momentum).
"""

import argparse
import itertools
from typing import Any

import numpy as np

from benchmarks.utility.arms import ARMS, OPACUS, Job, run
from benchmarks.utility.tables import mean_cell, print_table
from dpnorm.parallel import run_jobs
from dpnorm.privacy import PrivacyConfig
from dpnorm.training import TrainConfig

EPSILONS = (1.0, 3.0, 8.0)
SEEDS = (0, 1, 2)
RECORDS = 4000
EXAMPLE = {"batch_size": 64, "epochs": 10, "lr": 0.1, "momentum": 0.0, "ema": 0.0}
EXAMPLE_ROW = f"{OPACUS}, its example's settings"
TUNED_AT = 3.0
FACTORS = (0.5, 1.0)


def settings(arm_factor: float, epsilon: float) -> dict[str, Any]:
    """The default settings with a share of their learning rate."""
    default = TrainConfig().settings(RECORDS, PrivacyConfig(epsilon=epsilon)).lr
    return {"lr": arm_factor * default, "physical_batch_size": 64}


def tune(arms: list[str], workers: int | None) -> dict[str, float]:
    """The share of the learning rate of each arm; prints the table."""
    jobs = [
        Job("synthetic", arm, TUNED_AT, 0, settings(factor, TUNED_AT))
        for arm in arms
        for factor in FACTORS
    ]
    results = dict(run_jobs(run, jobs, workers=workers))
    found = [results[number]["accuracy"] for number in range(len(jobs))]
    by_arm = dict(zip(arms, np.reshape(found, (len(arms), -1)), strict=True))
    rows = [[arm, *[f"{100 * accuracy:.1f}" for accuracy in by_arm[arm]]] for arm in arms]
    print(f"\nTuning on synthetic digits at epsilon {TUNED_AT:g}, by share of the learning rate\n")
    print_table(["variant", *[f"{factor:g}" for factor in FACTORS]], rows)
    return {arm: FACTORS[int(np.argmax(by_arm[arm]))] for arm in arms}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int)
    parser.add_argument("arms", nargs="*", default=ARMS)
    given = parser.parse_args()
    arms = list(given.arms)
    factors = tune(arms, given.workers)
    trained = {
        arm: {epsilon: settings(factors[arm], epsilon) for epsilon in EPSILONS} for arm in arms
    }
    if OPACUS in arms:
        trained[EXAMPLE_ROW] = dict.fromkeys(EPSILONS, EXAMPLE)
    keys = list(itertools.product(SEEDS, EPSILONS, trained))
    jobs = [
        Job("mnist5k", arm.partition(",")[0], epsilon, seed, trained[arm][epsilon])
        for seed, epsilon, arm in keys
    ]
    results = dict(run_jobs(run, jobs, workers=given.workers))
    cells: dict[tuple[str, float], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for number, (_, epsilon, arm) in enumerate(keys):
        cells.setdefault((arm, epsilon), []).append(results[number]["accuracy"])
        seconds.setdefault(arm, []).append(results[number]["seconds"])
    rows = [
        [
            arm,
            f"{factors[arm]:g}" if arm in factors else "",
            *[mean_cell(cells[arm, epsilon]) for epsilon in EPSILONS],
            f"{np.mean(seconds[arm]):.0f}",
        ]
        for arm in trained
    ]
    print("\nmnist5k, lenet from random weights\n")
    titles = [f"epsilon {epsilon:g}" for epsilon in EPSILONS]
    print_table(["variant", "share", *titles, "seconds"], rows)


if __name__ == "__main__":
    main()
