"""Three probes of what a network remembers, by normalization: memorization, influence, membership.

    python -m benchmarks.probes [FOLDER] [--train] > table.md

In the style of arXiv 2605.24420 (BatchNorm against none, and the others beside). One pool of 32
models for each normalization (benchmarks/probes.toml), all with the same halves of the same records
and the same 100 outliers (noise images with random labels), so that differences are of pairs. With
--train the pools are trained in FOLDER (runs/probes) first, about an hour of two cores.
"""

import sys
from pathlib import Path

import numpy as np

from dpnorm.leakage import (
    Course,
    Estimate,
    Pool,
    PoolFolder,
    attack,
    auc_difference,
    memorized_difference,
    summarize_norms,
)
from dpnorm.leakage.pool_recipe import load_pool_recipe, train_recipe_pool

VARIANTS = ("batch", "group", "layer", "instance", "none")
RECIPE = Path(__file__).with_name("probes.toml")
EPOCHS = (1, 3, 5, 8, 15)
ATTACKS = ("loss", "lira", "rmia")


def row(name: str, *cells: object) -> str:
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"


def percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:.0f} [{low:.0f}, {high:.0f}]"


def header(*names: str) -> None:
    print("\n" + row("normalization", *names) + "\n|---|" + "---|" * len(names))


def memorization_table(courses: dict[str, Course]) -> None:
    print("\n### Outliers memorized, percent, after epoch")
    header(*map(str, EPOCHS))
    for name, course in courses.items():
        print(row(name, *(percent(course.memorization(e).outliers) for e in EPOCHS)))
    print("\nThe same, BatchNorm less each of the others:")
    header(*map(str, EPOCHS))
    for name, course in courses.items():
        if name != "batch":
            both = [(courses["batch"].memorization(e), course.memorization(e)) for e in EPOCHS]
            print(row(name, *(percent(memorized_difference(a, b)) for a, b in both)))


def norms_table(courses: dict[str, Course]) -> None:
    """Of each watched model apart: the median over the models, and their range."""
    print("\n### Median gradient norm of the outliers over that of the other records, after epoch")
    header(*map(str, EPOCHS))
    for name, course in courses.items():
        cells = []
        for epoch in EPOCHS:
            ratios = []
            for norms in course.norms[:, course.at(epoch)]:
                seen = np.isfinite(norms)
                found = summarize_norms(norms[seen], course.outlier[seen])
                ratios.append(float(found.ratio))
            cells.append(f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
        print(row(name, *cells))


def membership_table(pools: dict[str, Pool]) -> None:
    print("\n### Membership inference: AUC over all records, and over the outliers alone")
    header("accuracy", *(f"{a}, {who}" for who in ("all", "outliers") for a in ATTACKS))
    scores = {name: {a: attack(pool, a) for a in ATTACKS} for name, pool in pools.items()}
    for name, of in scores.items():
        accuracy = pools[name].accuracy
        assert accuracy is not None
        cells = [f"{100 * accuracy.mean():.1f}", *(of[a].auc for a in ATTACKS)]
        print(row(name, *cells, *(of[a].on(of[a].outlier).auc for a in ATTACKS)))
    print("\nThe same, BatchNorm less each of the others:")
    header(*(f"{a}, {who}" for who in ("all", "outliers") for a in ATTACKS))
    batch = scores["batch"]
    for name, of in scores.items():
        if name != "batch":
            everyone = [auc_difference(batch[a], of[a]) for a in ATTACKS]
            outlier = of["loss"].outlier
            few = [auc_difference(batch[a].on(outlier), of[a].on(outlier)) for a in ATTACKS]
            print(row(name, *everyone, *few))
    print("\n### TPR at 0.1% FPR over all records, percent")
    header(*ATTACKS)
    for name, of in scores.items():
        print(row(name, *(f"{_fine(of[a].tpr_at_fpr(0.001))}" for a in ATTACKS)))


def _fine(share: Estimate) -> str:
    return f"{100 * share.value:.2f} [{100 * share.low:.2f}, {100 * share.high:.2f}]"


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--train"]
    folder = Path(arguments[0]) if arguments else Path("runs/probes")
    if "--train" in sys.argv:
        for variant in VARIANTS:
            print(f"training {variant}", file=sys.stderr)
            train_recipe_pool(load_pool_recipe(RECIPE, [f"variant={variant}"]), folder / variant)
    folders = {variant: PoolFolder(folder / variant) for variant in VARIANTS}
    courses = {variant: at.course() for variant, at in folders.items()}
    memorization_table(courses)
    norms_table(courses)
    membership_table({variant: at.pool() for variant, at in folders.items()})


if __name__ == "__main__":
    main()
