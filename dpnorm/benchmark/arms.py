"""Arms: what a suite asks for, checked and calibrated before anything is trained or written."""

import math
from dataclasses import dataclass
from itertools import product

import torch

from dpnorm.benchmark.cells import Cell, load_data
from dpnorm.benchmark.suite import Suite
from dpnorm.conversion import variants
from dpnorm.data import Dataset
from dpnorm.detection import Report, Verdict
from dpnorm.errors import ConversionError, InputError
from dpnorm.leakage.members import pool_privacy
from dpnorm.privacy import PrivacyConfig, noise_for
from dpnorm.training.judge import check_classifier
from dpnorm.training.networks import build_network


@dataclass(frozen=True)
class Arm:
    """One row of the result to be: its verdict, and its cells, none when it is refused."""

    dataset: str
    model: str
    variant: str
    epsilon: float
    report: Report
    privacy: PrivacyConfig | None
    cells: tuple[Cell, ...]

    @property
    def private(self) -> bool:
        return math.isfinite(self.epsilon)

    @property
    def refused(self) -> bool:
        return not self.cells


def plan(suite: Suite) -> list[Arm]:
    """The arms of a suite, in the order of its lists.

    Each variant of each model is built and judged by `check`; a refuted one is refused under
    privacy. The noise of private arms is calibrated here, once for all members.

    Raises:
        DpnormError: an unknown model or data set, a variant that a model cannot take, a batch
            larger than a member's data, an epsilon that cannot be reached.
    """
    arms = []
    for dataset, model in product(suite.datasets, suite.models):
        data = load_data(dataset, suite.outliers)
        _require_batch(suite, data)
        for variant in suite.variants:
            report = _judge(model, variant, data, suite.seed)
            for epsilon in suite.epsilons:
                arms.append(_arm(suite, data, dataset, model, variant, epsilon, report))
    return arms


def _arm(
    suite: Suite,
    data: Dataset,
    dataset: str,
    model: str,
    variant: str,
    epsilon: float,
    report: Report,
) -> Arm:
    private = math.isfinite(epsilon)
    unsafe = report.verdict != Verdict.PROVEN or not variants()[variant].safe
    if private and unsafe:
        return Arm(dataset, model, variant, epsilon, report, None, ())
    privacy = _calibrated(suite, epsilon, len(data.train)) if private else None
    cells = tuple(
        Cell(
            dataset=dataset,
            data_fingerprint=data.fingerprint(),
            outliers=suite.outliers,
            model=model,
            variant=variant,
            epsilon=epsilon,
            training=suite.training_for(epsilon, len(data.train) // 2),
            privacy=privacy,
            members=suite.members,
            member=member,
            seed=suite.seed,
        )
        for member in range(suite.members)
    )
    return Arm(dataset, model, variant, epsilon, report, privacy, cells)


def _judge(model: str, variant: str, data: Dataset, seed: int) -> Report:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            network = build_network(model, variant, data)
        except ConversionError as error:
            raise ConversionError(f"{model} cannot take the variant {variant!r}: {error}") from None
        return check_classifier(network.train(), data.shape, seed=seed)


def _calibrated(suite: Suite, epsilon: float, records: int) -> PrivacyConfig:
    """The privacy of every member of an arm, with its noise found once."""
    shared = suite.privacy
    wanted = PrivacyConfig(epsilon=epsilon, seed=suite.seed, **shared.model_dump())
    settled = pool_privacy(wanted, suite.training_for(epsilon, records // 2), records, suite.seed)
    noise = noise_for(
        epsilon=epsilon,
        sampling_rate=settled.sampling_rate or math.nan,
        steps=settled.steps or 0,
        delta=shared.delta,
        accountant=shared.accountant,
    )
    return PrivacyConfig(
        noise_multiplier=noise,
        sampling_rate=settled.sampling_rate,
        steps=settled.steps,
        seed=suite.seed,
        **shared.model_dump(),
    )


def _require_batch(suite: Suite, data: Dataset) -> None:
    half = len(data.train) // 2
    for epsilon in suite.epsilons:
        size = suite.training_for(epsilon, half).batch_size
        assert size is not None
        if size > half:
            raise InputError(
                f"batch_size is {size}, but a member of the pool sees about {half} records, half "
                f"of {data.name}'s training records: take a smaller batch"
            )
