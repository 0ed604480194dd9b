"""A made-up run with the shape of a real one, for the tests of every renderer."""

import math

import pytest

from dpnorm.benchmark.html import to_html
from dpnorm.benchmark.results import BenchmarkResult, Curve, Row, Timing
from dpnorm.leakage.estimate import Estimate
from tests.benchmark.report.made_up import made_up_run

PLAIN_ACCURACY = {
    "batch": 0.972, "none": 0.941, "group": 0.966, "layer": 0.962, "instance": 0.958,
    "frozen": 0.961,
}  # fmt: skip
PLAIN_AUC = {
    "batch": 0.713, "none": 0.604, "group": 0.668, "layer": 0.655, "instance": 0.681,
    "frozen": 0.649,
}  # fmt: skip
REASON = (
    "DPN101 BatchNorm2d at stem.1 and 8 more: one record changes the normalized rows of the others"
)


def around(value: float, half: float, low: float = 0.0, high: float = 1.0) -> Estimate:
    return Estimate(value, max(low, value - half), min(high, value + 1.2 * half))


def curve(auc: float) -> Curve:
    """A binormal-like curve tpr = fpr ** a, whose area is 1 / (1 + a)."""
    fpr = (0.0, *(10 ** (-3.4 + 3.4 * i / 60) for i in range(61)))
    return Curve(fpr, tuple(f ** (1 / auc - 1) for f in fpr), non_members=640)


def trained(variant: str, epsilon: float) -> Row:
    cost = 0.0 if math.isinf(epsilon) else 0.07 + 0.09 / epsilon
    keep = 1.0 if math.isinf(epsilon) else 0.22 if epsilon > 4 else 0.04
    accuracy = PLAIN_ACCURACY[variant] - cost * (1.8 if variant == "none" else 1.0)
    auc = 0.5 + (PLAIN_AUC[variant] - 0.5) * keep
    private = not math.isinf(epsilon)
    return Row(
        dataset="digits",
        model="resnet8",
        variant=variant,
        target_epsilon=epsilon,
        verdict="refuted" if variant == "batch" else "proven",
        status="trained",
        members=8,
        accuracy=Estimate(accuracy, accuracy - 0.0123, accuracy + 0.0123),
        epsilon=epsilon - 0.0179 if private else math.inf,
        delta=1e-5 if private else None,
        noise_multiplier=0.61 + 1 / epsilon if private else None,
        auc={"loss": around(0.5 + (auc - 0.5) * 0.7, 0.011), "lira": around(auc, 0.0102)},
        tpr={"loss": around(0.011, 0.004), "lira": around(0.01 + (auc - 0.5) * 0.6, 0.0089)},
        roc={"loss": curve(0.5 + (auc - 0.5) * 0.7), "lira": curve(auc)},
        memorized=around(keep * PLAIN_AUC[variant] * 1.3, 0.061),
    )


def refused(variant: str, epsilon: float) -> Row:
    return Row(
        "digits", "resnet8", variant, epsilon, "refuted", "refused", reason=REASON, witness=5.8132
    )


@pytest.fixture(scope="session")
def result() -> BenchmarkResult:
    rows = tuple(
        refused(variant, epsilon)
        if variant == "batch" and math.isfinite(epsilon)
        else trained(variant, epsilon)
        for variant in PLAIN_ACCURACY
        for epsilon in (math.inf, 8.0, 1.0)
    )
    return BenchmarkResult(
        name="quick",
        rows=rows,
        timings=tuple(
            Timing(r.dataset, r.model, r.variant, r.target_epsilon, 11.25 + i / 7, 0.4 + i / 90)
            for i, r in enumerate(rows)
            if r.status == "trained"
        ),
        suite={
            "name": "quick",
            "datasets": ["digits"],
            "models": ["resnet8"],
            "variants": list(PLAIN_ACCURACY),
            "epsilons": [math.inf, 8.0, 1.0],
            "training": {"epochs": 20, "batch_size": 64, "optimizer": "sgd", "lr": 0.1},
            "privacy": {"delta": 1e-5, "clip": 1.0, "accountant": "prv"},
            "pool": {"members": 8, "outliers": {"kind": "noise", "count": 40}},
            "seed": 0,
        },
        versions={
            "dpnorm": "0.1.0", "torch": "2.14.1", "opacus": "1.6.0", "numpy": "2.4.6",
            "python": "3.11.2",
        },
        command="dpnorm bench run benchmarks/quick.toml --runs runs",
        notes=(
            "Neighbouring relation: add or remove one record. Unit of privacy: one record. Poisson "
            "sampling, PRV accountant.",
            "Each epsilon covers one member's training, not the choice of hyper-parameters, nor "
            "the release of several members.",
            "Noise and sampling are seeded to make the run reproducible: for benchmarks only.",
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def page(result: BenchmarkResult) -> str:
    """report.html of that run."""
    return to_html(result)


@pytest.fixture(scope="session")
def wide() -> BenchmarkResult:
    """A run of several seeds with everything that a report can show."""
    return made_up_run()


@pytest.fixture(scope="session")
def wide_page(wide: BenchmarkResult) -> str:
    """report.html of that run."""
    return to_html(wide)


@pytest.fixture(scope="session")
def hostile_page(hostile: BenchmarkResult) -> str:
    """report.html of the hostile run."""
    return to_html(hostile)


@pytest.fixture(scope="session")
def hostile(result: BenchmarkResult) -> BenchmarkResult:
    """The same run with names that try to break out of each format."""
    name = "<script>alert(1)</script>\"'|`$x$\n\x1b[31m[red]&amp;"
    rows = (
        trained_as(result.rows[0], name),
        trained_as(result.rows[1], name),
    )
    return BenchmarkResult(
        name=name, rows=rows, timings=(), suite={name: [name, math.inf]}, versions={name: name},
        command=f"dpnorm bench run '{name}' ```", notes=(name,),
    )  # fmt: skip


def trained_as(row: Row, name: str) -> Row:
    values = {**row.__dict__, "variant": name, "reason": name, "model": name}
    return Row(**values)
