"""A made-up run with everything that a report shows: its numbers come from a seeded generator."""

import math
import random

from dpnorm.benchmark.results import Audited, BenchmarkResult, Curve, Norms, Row, Timing
from dpnorm.leakage.estimate import Estimate

VARIANTS = (
    "batch", "none", "group", "layer", "instance", "rms", "scale", "evonorm",
    "weight-standardized", "frozen", "folded", "private-batch",
)  # fmt: skip
EPSILONS = (math.inf, 8.0, 1.0)
SEEDS = (0, 1)
NOMINAL = {8.0: 7.9531, 1.0: 0.9917}  # what the accountant says; for a void arm never printed
TRACEBACK = 'Traceback (most recent call last):\n  File "cell.py", line 7\nMemoryError: 3 | GiB'
FINDINGS = tuple(
    {
        "code": "DPN101",
        "path": f"stage{i}.norm",
        "module": "BatchNorm2d",
        "location": "model.py:41",
        "message": "one record changes the normalized rows of the others",
        "witness": 5.8132 - i,
        "remedy": 'dpnorm.convert(model, to="group")',
    }
    for i in range(3)
)


def around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


def curve(auc: float, non_members: int = 640, points: int = 80) -> Curve:
    fpr = (0.0, *(non_members ** (i / (points - 1) - 1) for i in range(points)))
    return Curve(fpr, tuple(f ** (1 / auc - 1) for f in fpr), non_members)


def course(draw: random.Random, final: float) -> tuple[tuple[int, Estimate], ...]:
    return tuple(
        (epoch, around(final * (1 - math.exp(-epoch / 6)) + draw.gauss(0, 0.01), 0.04))
        for epoch in range(2, 21, 2)
    )


def norms(draw: random.Random) -> tuple[Norms, ...]:
    def quantiles(median: float) -> tuple[float, ...]:
        return tuple(median * factor for factor in (0.2, 0.55, 1.0, 1.7, 4.0))

    start = draw.uniform(1.5, 4)
    return tuple(
        Norms(
            epoch,
            quantiles(start * math.exp(-epoch / 12)),
            quantiles(start * (1.2 + 2 * math.exp(-epoch / 15))),
        )
        for epoch in (5, 10, 15, 20)
    )


def audit(kind: str, claimed: float, bound: float) -> Audited:
    given = {
        "epsilon": bound, "low": bound, "high": "inf", "confidence": 0.95, "delta": 1e-5,
        "method": "one run, guesses (arXiv 2305.08846)", "standing": "rigorous",
        "condition": "canaries were drawn independently", "canaries": 1000, "guesses": 200,
        "correct": 150, "ceiling": 5.1 if kind == "black-box" else 9.6, "fixed": "the guesses",
    }  # fmt: skip
    return Audited(kind, claimed, given, exceeded=bound > claimed)


def statement(epsilon: float, isolation: str) -> dict[str, object]:
    return {
        "epsilon": epsilon, "delta": 1e-5, "noise_multiplier": 0.61, "clip": 1.0,
        "sampling_rate": 0.064, "steps": 320, "accountant": "PRV", "randomness": "seed 0",
        "isolation": isolation, "substitution": 2 * epsilon, "groups": [[2, 2 * epsilon]],
        "total_epsilon": epsilon, "unit": "one training record",
    }  # fmt: skip


def trained(variant: str, epsilon: float, seed: int) -> Row:
    place = VARIANTS.index(variant)
    draw = random.Random(f"{variant} {epsilon} {seed}")
    private, void = math.isfinite(epsilon), variant == "batch" and math.isfinite(epsilon)
    keep = 1.0 if not private else 0.9 if void else 0.35 if epsilon > 4 else 0.08
    accuracy = 0.972 - 0.004 * place + draw.gauss(0, 0.004)
    accuracy -= (0.06 + 0.12 / epsilon + 0.006 * ((place * 5) % 12)) if private else 0.0
    auc = 0.5 + keep * (0.22 - 0.012 * ((place * 7) % 12)) + draw.gauss(0, 0.004)
    spent = NOMINAL.get(epsilon, math.inf)
    isolation = "refuted: DPN101" if void else "proven"
    audits = ()
    if private:
        kinds = {"white-box": 1.1 if void else 0.3, "black-box": 0.4 if void else 0.04}
        audits = tuple(
            audit(kind, math.inf if void else spent, share * epsilon * draw.uniform(0.8, 1.2))
            for kind, share in kinds.items()
        )
    return Row(
        dataset="digits",
        model="resnet8",
        variant=variant,
        target_epsilon=epsilon,
        verdict="refuted" if variant == "batch" else "proven",
        status="trained",
        seed=seed,
        witness=5.8132 if variant == "batch" else None,
        members=8,
        accuracy=around(accuracy, 0.012),
        void=void,
        epsilon=spent,
        delta=1e-5 if private else None,
        noise_multiplier=0.61 + 1 / epsilon if private else None,
        auc={"loss": around(0.5 + 0.7 * (auc - 0.5), 0.011), "lira": around(auc, 0.012)},
        tpr={"loss": around(0.012, 0.004), "lira": around(0.01 + 0.5 * abs(auc - 0.5), 0.009)},
        roc={"loss": curve(0.5 + 0.7 * (auc - 0.5)), "lira": curve(auc)},
        outlier_auc={"lira": around(min(0.97, auc + 0.2 * keep), 0.02)},
        memorized=around(0.9 * keep, 0.05),
        course=course(draw, 0.9 * keep) if variant in ("batch", "group", "layer") else (),
        norms=norms(draw) if epsilon != 1.0 else (),
        audits=audits,
        findings=FINDINGS if variant == "batch" else (),
        statement=statement(spent, isolation) if private else None,
        statement_text=_statement_text(spent, isolation) if private else "",
    )


def _statement_text(epsilon: float, isolation: str) -> str:
    return (
        f"({epsilon:.4g}, 1e-05)-differential privacy for one training record\n"
        f"  neighbouring datasets: one record added or removed\n  record isolation: {isolation}"
    )


def row(variant: str, epsilon: float, seed: int) -> Row:
    arm = ("digits", "resnet8", variant, epsilon)
    if variant == "none" and epsilon == 1.0:
        reason = "1 of 8 members is missing: run the suite again"
        return Row(*arm, "proven", "incomplete", seed=seed, reason=reason)
    if variant == "evonorm" and epsilon == 8.0 and seed == 1:
        return Row(*arm, "proven", "failed", seed=seed, reason=TRACEBACK)
    if variant == "folded" and math.isfinite(epsilon):
        reason = "DPN901 an operator that is not known in head"
        return Row(*arm, "unproven", "refused", seed=seed, reason=reason)
    return trained(variant, epsilon, seed)


def made_up_run() -> BenchmarkResult:
    """12 variants, 3 epsilons and 2 seeds."""
    rows = tuple(row(v, e, s) for v in VARIANTS for e in EPSILONS for s in SEEDS)
    draw = random.Random(7)
    timings = tuple(
        Timing(
            r.dataset, r.model, r.variant, r.target_epsilon,
            draw.uniform(10, 15) * (3 if math.isfinite(r.target_epsilon) else 1),
            draw.uniform(0.3, 0.6), r.seed, draw.uniform(4, 6),
            draw.randrange(400, 900) * 2**20 if r.variant != "none" else None,
        )
        for r in rows
        if r.status == "trained"
    )  # fmt: skip
    return BenchmarkResult(
        name="standard",
        rows=rows,
        timings=timings,
        suite={
            "name": "standard",
            "variants": list(VARIANTS),
            "epsilons": list(EPSILONS),
            "seeds": list(SEEDS),
            "allow": "refuted",
            "training": {"epochs": 20, "batch_size": 64, "lr": 0.1},
        },
        versions={"dpnorm": "0.1.0", "torch": "2.14.1", "opacus": "1.6.0", "python": "3.11.2"},
        command="dpnorm bench run benchmarks/standard.toml --runs runs --set privacy.clip=1.0",
        notes=(
            "Neighbouring relation: add or remove one record. Unit of privacy: one record.",
            "Noise and sampling are seeded to make the run reproducible: for benchmarks only.",
        ),
        description="Every variant on a small data set, with and without privacy.",
        machine="a processor with 2 cores, Linux",
    )
