"""From the finished cells of a run's arms to its result."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from dpnorm.benchmark.arms import Arm
from dpnorm.benchmark.cells import Cell, read_facts
from dpnorm.benchmark.results import Audited, Curve, Norms, Row, Status, Timing
from dpnorm.benchmark.storage import Storage
from dpnorm.benchmark.work import recorded_error
from dpnorm.leakage.estimate import Estimate


def collect(arms: Iterable[Arm], storage: Storage) -> tuple[tuple[Row, ...], tuple[Timing, ...]]:
    """The rows of all arms, and the timings of those that were trained."""
    rows, timings = [], []
    for arm in arms:
        row, timing = _collect(arm, storage)
        rows.append(row)
        if timing is not None:
            timings.append(timing)
    return tuple(rows), tuple(timings)


def _collect(arm: Arm, storage: Storage) -> tuple[Row, Timing | None]:
    if arm.measure is None:
        return _empty(arm, "refused", arm.summary), None
    facts = read_facts(storage, arm.measure)
    if facts is None:
        return _empty(arm, *_unfinished(arm.cells(), storage)), None
    audits: tuple[Audited, ...] = ()
    seconds, reason = 0.0, ""
    if arm.audit is not None:
        found = read_facts(storage, arm.audit)
        if found is None:
            _, reason = _unfinished([arm.audit], storage)
        else:
            audits, seconds = _audited(found, arm.void), float(found["seconds"])
    row = Row(
        **_judged(arm),
        status="trained",
        reason=reason,
        members=facts["members"],
        accuracy=Estimate(**facts["accuracy"]),
        void=arm.void,
        epsilon=math.inf if facts["epsilon"] is None else facts["epsilon"],
        delta=facts["delta"],
        noise_multiplier=facts["noise_multiplier"],
        auc=_estimates(facts["auc"]),
        tpr=_estimates(facts["tpr"]),
        roc={name: _curve(each) for name, each in facts["roc"].items()},
        outlier_auc=_estimates(facts["outlier_auc"]),
        memorized=None if facts["memorized"] is None else Estimate(**facts["memorized"]),
        course=tuple((epoch, Estimate(**share)) for epoch, share in facts["course"]),
        norms=tuple(
            Norms(each["epoch"], tuple(each["rest"]), tuple(each["outliers"]))
            for each in facts["norms"]
        ),
        audits=audits,
        statement=facts["statement"],
        statement_text=facts["statement_text"],
    )
    timing = Timing(
        arm.dataset,
        arm.model,
        arm.variant,
        arm.epsilon,
        training=facts["training_s"],
        attacks=facts["attacks_s"],
        seed=arm.seed,
        audits=seconds,
        peak_bytes=facts["peak_bytes"],
    )
    return row, timing


def _unfinished(cells: Iterable[Cell], storage: Storage) -> tuple[Status, str]:
    """What is to say of cells that are not all finished."""
    for cell in cells:
        error = recorded_error(storage, cell)
        if error is not None:
            return "failed", f"{cell.describe()}: {error}"
    return "incomplete", "not all of its cells are computed: run the suite again"


def _empty(arm: Arm, status: Status, reason: str) -> Row:
    return Row(**_judged(arm), status=status, reason=reason, void=arm.void)


def _judged(arm: Arm) -> dict[str, Any]:
    return {
        "dataset": arm.dataset,
        "model": arm.model,
        "variant": arm.variant,
        "target_epsilon": arm.epsilon,
        "verdict": arm.verdict,
        "seed": arm.seed,
        "witness": arm.witness,
        "findings": arm.findings,
    }


def _audited(found: Mapping[str, Any], void: bool) -> tuple[Audited, ...]:
    claimed = math.inf if void else float(found["claimed_epsilon"])
    kinds = (("white-box", found["white_box"]), ("black-box", found["black_box"]))
    return tuple(
        Audited(kind, claimed, bound, _exceeds(bound, claimed, found["gaussian_claim"]))
        for kind, bound in kinds
    )


def _exceeds(bound: Mapping[str, Any], claimed: float, gaussian: bool) -> bool:
    proven = {"rigorous", *(["assumes a trade-off family"] if gaussian else [])}
    return bound["standing"] in proven and float(bound["epsilon"]) > claimed


def _estimates(plain: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
    return {name: Estimate(**each) for name, each in plain.items()}


def _curve(plain: Mapping[str, Any]) -> Curve:
    return Curve(tuple(plain["fpr"]), tuple(plain["tpr"]), plain["non_members"])
