"""Arms: what a suite asks for, checked and calibrated before anything is trained or written."""

import math
from itertools import product
from typing import Any

import numpy as np
import torch

from dpnorm.benchmark.cells import (
    AuditCell,
    Cell,
    Epsilon,
    MeasureCell,
    MemberCell,
    arm_label,
    load_data,
)
from dpnorm.benchmark.suite import OutlierConfig, Suite
from dpnorm.config import Config
from dpnorm.conversion import variants
from dpnorm.data import Dataset
from dpnorm.detection import Report, Verdict
from dpnorm.errors import ConversionError, InputError
from dpnorm.leakage import Pool, attack, draw_membership
from dpnorm.leakage.audits.training import AUDITED_MODES
from dpnorm.leakage.members import pool_privacy
from dpnorm.privacy import PrivacyConfig, noise_for
from dpnorm.training import TrainConfig
from dpnorm.training.judge import check_classifier
from dpnorm.training.networks import build_network


class Arm(Config):
    """One row of the result to be: its verdict, and its cells, none when it is refused.

    Attributes:
        dataset: and the next four: which arm it is.
        verdict: of `check`, on the model as it is trained.
        summary: the verdict in a line.
        witness: the number that refuted the model, or None.
        findings: of `check`, as plain data.
        void: trained privately though not proven, as the suite allows.
        members: the cells of its pool.
        audit: its audited training, if the suite asks for it and it can be audited.
        measure: everything that is measured of the pool.
    """

    dataset: str
    model: str
    variant: str
    epsilon: Epsilon
    seed: int
    verdict: str
    summary: str
    witness: float | None
    findings: tuple[dict[str, Any], ...]
    void: bool = False
    members: tuple[MemberCell, ...] = ()
    audit: AuditCell | None = None
    measure: MeasureCell | None = None

    @property
    def refused(self) -> bool:
        return not self.members

    @property
    def label(self) -> str:
        """The arm in a few words."""
        return arm_label(
            self.dataset, self.model, self.variant, self.epsilon, self.seed, void=self.void
        )

    def trained(self) -> list[Cell]:
        """The cells that need no other cell."""
        return [*self.members, *([self.audit] if self.audit is not None else [])]

    def cells(self) -> list[Cell]:
        """All cells."""
        return [*self.trained(), *([self.measure] if self.measure is not None else [])]


def plan(suite: Suite) -> list[Arm]:
    """The arms of a suite, in the order of its lists.

    Each variant of each model is built and judged by `check`; what it does not prove is refused
    under privacy, unless the suite allows it. The noise of private arms is calibrated here, once
    for all members.

    Raises:
        DpnormError: an unknown model or data set, a variant that a model cannot take, a batch
            larger than a member's data, an epsilon that cannot be reached.
    """
    arms = []
    for dataset, seed in product(suite.datasets, suite.seeds):
        _require_attacks(suite, len(load_data(dataset, None).train) + suite.pool.outliers, seed)
    for dataset, model, variant in product(suite.datasets, suite.models, suite.variants):
        report = _judge(model, variant, load_data(dataset, None))
        for epsilon, seed in product(suite.epsilons, suite.seeds):
            own = suite.for_arm(dataset, model, variant, epsilon)
            arms.append(_arm(own, (dataset, model, variant, epsilon), seed, report))
    return arms


def _arm(suite: Suite, arm: tuple[str, str, str, float], seed: int, report: Report) -> Arm:
    dataset, model, variant, epsilon = arm
    judged: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "variant": variant,
        "epsilon": epsilon,
        "seed": seed,
        "verdict": str(report.verdict),
        "summary": report.summary().partition(": ")[2],
        "witness": report.witness,
        "findings": tuple(report.to_dict()["findings"]),
    }
    private = math.isfinite(epsilon)
    unsafe = report.verdict != Verdict.PROVEN or not variants()[variant].safe
    if private and unsafe and not _is_allowed(suite, report.verdict):
        return Arm(**judged)
    outliers = None
    if suite.pool.outliers:
        outliers = OutlierConfig(kind=suite.pool.outlier_kind, count=suite.pool.outliers, seed=seed)
    data = load_data(dataset, outliers)
    training = suite.training_for(epsilon, len(data.train) // 2)
    _require_batch(training, data)
    allow = suite.allow if private and unsafe else None
    shared: dict[str, Any] = {
        "dataset": dataset,
        "data_fingerprint": data.fingerprint(),
        "outliers": outliers,
        "model": model,
        "variant": variant,
        "epsilon": epsilon,
        "training": training,
        "privacy": _calibrated(suite, epsilon, training, len(data.train), seed, allow)
        if private
        else None,
        "seed": seed,
        "processes": suite.processes,
    }
    pool = suite.pool
    members = tuple(
        MemberCell(
            **shared,
            members=pool.size,
            member=member,
            views=pool.views,
            view_kind=pool.view_kind,
            watch_every=pool.watch_every,
            watch_norms=member < pool.watch_norms,
        )
        for member in range(pool.size)
    )
    measure = MeasureCell(
        **shared,
        members=tuple(cell.name for cell in members),
        attacks=suite.leakage.attacks,
        watched=bool(pool.watch_every),
    )
    audit = _audit(suite, shared, seed, allow) if private else None
    return Arm(**judged, void=private and unsafe, members=members, audit=audit, measure=measure)


def _is_allowed(suite: Suite, verdict: Verdict) -> bool:
    return suite.allow == "refuted" or (suite.allow == "unproven" and verdict != Verdict.REFUTED)


def _judge(model: str, variant: str, data: Dataset) -> Report:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            network = build_network(model, variant, data)
        except ConversionError as error:
            raise ConversionError(f"{model} cannot take the variant {variant!r}: {error}") from None
        return check_classifier(network.train(), data.shape)


def _calibrated(
    suite: Suite, epsilon: float, training: TrainConfig, records: int, seed: int, allow: str | None
) -> PrivacyConfig:
    """The privacy of every member of an arm, with its noise found once."""
    shared = suite.privacy.model_dump() | {"seed": seed, "allow": allow}
    wanted = PrivacyConfig(epsilon=epsilon, **shared)
    settled = pool_privacy(wanted, training, records, seed)
    noise = noise_for(
        epsilon=epsilon,
        sampling_rate=settled.sampling_rate or math.nan,
        steps=settled.steps or 0,
        delta=wanted.delta,
        accountant=wanted.accountant,
    )
    return PrivacyConfig(
        noise_multiplier=noise,
        sampling_rate=settled.sampling_rate,
        steps=settled.steps,
        **shared,
    )


def _audit(suite: Suite, shared: dict[str, Any], seed: int, allow: str | None) -> AuditCell | None:
    """The audit of a private arm, which calibrates its own noise: its records are others."""
    if suite.audits is None:
        return None
    privacy = PrivacyConfig(
        epsilon=shared["epsilon"], seed=seed, allow=allow, **suite.privacy.model_dump()
    )
    training = suite.private_training or suite.training
    if training.grad_sample_mode not in AUDITED_MODES:
        raise InputError(
            f"audits: grad_sample_mode is {training.grad_sample_mode!r}; an audit takes "
            f"{' or '.join(map(repr, AUDITED_MODES))}, as canaries stand among the gradients of "
            "single records"
        )
    return AuditCell(**(shared | {"training": training, "privacy": privacy}), audits=suite.audits)


def _require_attacks(suite: Suite, records: int, seed: int) -> None:
    """Each attack runs on scores of nothing, with the membership that the pool will have."""
    generator = np.random.default_rng(0)
    size = suite.pool.size
    pool = Pool(
        keep=draw_membership(records, size, seed),
        logits=generator.normal(size=(size, records, suite.pool.views, 2)).astype(np.float32),
        labels=generator.integers(0, 2, records),
        outlier=np.zeros(records, dtype=bool),
    )
    for name in suite.leakage.attacks:
        try:
            attack(pool, name)
        except InputError as error:
            raise InputError(f"leakage.attacks: {error}") from None


def _require_batch(training: TrainConfig, data: Dataset) -> None:
    half = len(data.train) // 2
    assert training.batch_size is not None
    if training.batch_size > half:
        raise InputError(
            f"batch_size is {training.batch_size}, but a member of the pool sees about {half} "
            f"records, half of {data.name}'s training records: take a smaller batch"
        )
