"""Training a pool with one process a core, against a loop over its models with as many threads.

    python benchmarks/pool_speed.py [MODELS] [EPOCHS]

The loop is what one writes by hand: a DataLoader, SGD, all cores for each model in turn
(`dpnorm.benchmark.speed.pools`). Both train on the same halves of mnist5k, and take logits of all
records in the end; the time of the pool has the start of its processes in it, once for all rows.
"""

import functools
import sys
import time
from collections.abc import Callable

import dpnorm
from dpnorm.benchmark.speed.pools import PoolOfModels
from dpnorm.parallel import cores
from dpnorm.training.networks import build_network

MODELS, EPOCHS, BATCH = 16, 10, 64
NETWORKS = (("lenet", "batch"), ("lenet", "group"), ("resnet8", "batch"))


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else MODELS
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else EPOCHS
    data = dpnorm.data.load("mnist5k")
    print(f"{size} models, {epochs} epochs of {len(data.train) // 2} records, {cores()} cores\n")
    print("| model | loop, s a model | pool, s a model | ratio |")
    print("|---|---:|---:|---:|")
    for model, variant in NETWORKS:
        factory = functools.partial(build_network, model, variant, data)
        models = PoolOfModels(factory, data, size, epochs, BATCH)
        loop = seconds(models.one_by_one) / size
        pool = seconds(models.at_once) / size
        print(f"| {model}, {variant} | {loop:.2f} | {pool:.2f} | {loop / pool:.2f} |", flush=True)


if __name__ == "__main__":
    main()
