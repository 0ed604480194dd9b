"""Private fine-tuning of a BatchNorm network that was pretrained on public records.

    python -m benchmarks.utility.fine_tuning [--model resnet8] [--workers N] [ARM ...]

A network with BatchNorm is trained plainly on 2,000 public records, its layers are exchanged by
each variant (matched, as `dpnorm.convert` does by default) and by Opacus's ModuleValidator.fix, and
what comes out is trained privately on the other records, at epsilon 0.5, 1 and 3, with three seeds.
The learning rate of each arm is found on synthetic digits in the same way, alike for all.
"""

import argparse
import copy
import dataclasses
import functools
import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import dpnorm
from benchmarks.utility.arms import ARMS, MODEL, dataset, exchanged, kept, measured
from benchmarks.utility.tables import mean_cell, print_table
from dpnorm.data import Dataset, Records
from dpnorm.parallel import run_jobs
from dpnorm.training import TrainConfig, accuracy

PUBLIC = 2000
STATISTICS = 256  # public records that public-batch takes its statistics of
EPSILONS = (0.5, 1.0, 3.0)
SEEDS = (0, 1, 2)
TUNED_AT = 1.0
GRID = (0.02, 0.1, 0.5)
SETTINGS: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 256,
    "momentum": 0.0,
    "ema": 0.9,
    "physical_batch_size": 64,
}
PRETRAINING = {"epochs": 20, "lr": 0.05, "schedule": "cosine", "weight_decay": 5e-4}


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning.

    Attributes:
        data: "synthetic" or a name of `dpnorm.data.load`.
        arm: in ARMS.
        epsilon: the budget; 0 for the network as it is after the exchange.
        seed: of pretraining, sampling and noise.
        lr: learning rate.
        model: as `dpnorm.models.build` takes it.
        training: other settings.
        clip: the clipping norm.
    """

    data: str
    arm: str
    epsilon: float
    seed: int
    lr: float
    model: str = MODEL
    training: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(SETTINGS))
    clip: float = 1.0

    @property
    def name(self) -> str:
        """A digest of all that decides the result."""
        text = json.dumps([dataclasses.asdict(self), PRETRAINING, PUBLIC], sort_keys=True)
        return "tuned-" + hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def parts(name: str) -> Dataset:
    """The data set with PUBLIC of its records set apart as public."""
    data = dataset(name)
    more = PUBLIC - len(data.public)
    x = torch.cat([data.public.x, data.train.x[:more]])
    y = torch.cat([data.public.y, data.train.y[:more]])
    private = data.train.select(slice(more, None))
    return dataclasses.replace(data, train=private, public=Records(x, y))


@functools.cache
def pretrained(name: str, seed: int, model: str) -> nn.Module:
    """A BatchNorm network that was trained on the public records."""
    data = parts(name)
    torch.manual_seed(seed)
    network = dpnorm.models.build(
        model, in_channels=1, num_classes=data.num_classes, image_size=data.shape[1:]
    )
    config = TrainConfig(seed=seed, evaluate_every=0, **PRETRAINING)  # type: ignore[arg-type]
    return dpnorm.train(network, data.public, config).model


def run(job: FineTuning) -> dict[str, float]:
    """Exchanges and trains; accuracy before and after, kept on disk."""
    return kept(job, lambda: _tuned(job))


def _tuned(job: FineTuning) -> dict[str, float]:
    data = parts(job.data)
    source = copy.deepcopy(pretrained(job.data, job.seed, job.model))
    network = exchanged(source, job.arm, data, init="match")
    before = accuracy(network, data.test)
    if not job.epsilon:
        return {"accuracy": before, "source": accuracy(source, data.test)}
    few = dataclasses.replace(data, public=data.public.select(slice(0, STATISTICS)))
    settings = dataclasses.replace(job, training={**job.training, "lr": job.lr})
    return measured(network, few, settings) | {"before": before}


def tune(arms: list[str], model: str, workers: int | None) -> dict[str, float]:
    """The learning rate of each arm, by accuracy on synthetic digits; prints the table."""
    jobs = [FineTuning("synthetic", arm, TUNED_AT, 0, lr, model) for arm in arms for lr in GRID]
    results = dict(run_jobs(run, jobs, workers=workers))
    by_arm: dict[str, dict[float, float]] = {arm: {} for arm in arms}
    for number, job in enumerate(jobs):
        by_arm[job.arm][job.lr] = results[number]["accuracy"]
    rows = [[arm, *[f"{100 * by_arm[arm][lr]:.1f}" for lr in GRID]] for arm in arms]
    print(f"\nTuning of {model} on synthetic digits at epsilon {TUNED_AT:g}, by learning rate\n")
    print_table(["variant", *[f"{lr:g}" for lr in GRID]], rows)
    return {arm: max(GRID, key=lambda lr: by_arm[arm][lr]) for arm in arms}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--workers", type=int)
    parser.add_argument("arms", nargs="*", default=ARMS)
    given = parser.parse_args()
    arms = list(given.arms)
    rates = tune(arms, given.model, given.workers)
    jobs = [
        FineTuning("mnist5k", arm, epsilon, seed, rates[arm] if epsilon else 0.0, given.model)
        for arm, epsilon, seed in itertools.product(arms, (0.0, *EPSILONS), SEEDS)
    ]
    results = dict(run_jobs(run, jobs, workers=given.workers))
    cells: dict[tuple[str, float], list[float]] = {}
    for number, job in enumerate(jobs):
        cells.setdefault((job.arm, job.epsilon), []).append(results[number]["accuracy"])
    source = [r["source"] for r in results.values() if "source" in r]
    print(f"\n{given.model}, BatchNorm on 2,000 public records: {mean_cell(source)}\n")
    rows = [
        [arm, f"{rates[arm]:g}", *[mean_cell(cells[arm, e]) for e in (0.0, *EPSILONS)]]
        for arm in arms
    ]
    titles = [f"epsilon {epsilon:g}" for epsilon in EPSILONS]
    print_table(["variant", "lr", "as exchanged", *titles], rows)


if __name__ == "__main__":
    main()
