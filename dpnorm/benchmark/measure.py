"""From the finished members of an arm to its row."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.cells import load_data
from dpnorm.benchmark.results import Curve, Row, Timing
from dpnorm.leakage import Estimate, Member, Pool, attack, memorization
from dpnorm.leakage.scores import MembershipScores

ATTACKS = ("loss", "lira")
LOW_FPR = 0.01
_CURVE_POINTS = 200


def refused_row(arm: Arm) -> Row:
    """The row of an arm that must not be trained: why, with the measured witness."""
    return Row(
        dataset=arm.dataset,
        model=arm.model,
        variant=arm.variant,
        target_epsilon=arm.epsilon,
        verdict=str(arm.report.verdict),
        status="refused",
        reason=arm.report.summary().partition(": ")[2],
        witness=arm.report.witness,
    )


def measure(arm: Arm, members: Sequence[Member]) -> tuple[Row, Timing]:
    """Accuracy, epsilon, attacks and memorization of a trained arm."""
    started = time.perf_counter()
    outliers = arm.cells[0].outliers
    train = load_data(arm.dataset, outliers).train
    pool = Pool.from_members(list(members), labels=train.y.numpy(), outlier=train.outlier.numpy())
    scores = {name: attack(pool, name) for name in ATTACKS}
    statements = [m.statement for m in members if m.statement is not None]
    row = Row(
        dataset=arm.dataset,
        model=arm.model,
        variant=arm.variant,
        target_epsilon=arm.epsilon,
        verdict=str(arm.report.verdict),
        status="trained",
        members=len(members),
        accuracy=mean_with_interval([m.accuracy for m in members]),
        epsilon=_largest(statements, "epsilon") if statements else math.inf,
        delta=_largest(statements, "delta") if statements else None,
        noise_multiplier=_largest(statements, "noise_multiplier") if statements else None,
        witness=arm.report.witness,
        auc={name: s.auc for name, s in scores.items()},
        tpr={name: s.tpr_at_fpr(LOW_FPR) for name, s in scores.items()},
        roc={name: _curve(s) for name, s in scores.items()},
        memorized=memorization(pool).outliers if outliers is not None else None,
    )
    training = sum(m.seconds for m in members)
    timing = Timing(
        arm.dataset,
        arm.model,
        arm.variant,
        arm.epsilon,
        training=training,
        attacks=time.perf_counter() - started,
    )
    return row, timing


def mean_with_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean with Student's interval over at least two values."""
    mean = float(np.mean(values))
    spread = float(stats.sem(values))
    half = spread * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Estimate(mean, mean - half, mean + half, confidence)


def _largest(statements: Sequence[Mapping[str, float]], key: str) -> float:
    return max(float(statement[key]) for statement in statements)


def _curve(scores: MembershipScores) -> Curve:
    """The ROC curve at false-positive rates spread evenly on a logarithmic axis."""
    roc = scores.roc()
    others = int((~scores.keep).sum())
    wanted = np.concatenate([[0.0], np.geomspace(1 / others, 1.0, _CURVE_POINTS)])
    at = np.searchsorted(roc.fpr, wanted, side="right") - 1
    return Curve(tuple(wanted.tolist()), tuple(roc.tpr[at].tolist()), others)
