"""What a private training guarantees, in full."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import nn

from dpnorm.errors import InputError
from dpnorm.norms import public_statistics, released_statistics
from dpnorm.privacy.accounting import epsilon_of
from dpnorm.privacy.equivalents import group_epsilon, substitution_epsilon
from dpnorm.privacy.ledger import Event, Ledger, Release

GROUPS = (2, 4)  # the sizes for which a statement says what holds
POISSON = "Poisson: each record independently in each batch"
FIXED = "fixed batches, each accounted as a full one that a record moves by twice the clipping norm"
NOT_COVERED = (
    "the number of records, which sets the sampling rate and the expected batch size",
    "hyperparameters that were chosen by looking at private results",
    "the training history (losses, accuracies, share of clipped or dropped records), if published",
    "test accuracy on private records, if published",
    "rounding of the noise to floating point",
    "how long training took, and errors that ended it early",
)
DRAWS = (
    "random draws of the model (dropout) and of augmentation, if the seed of their generator is "
    "known"
)
AUGMENTATION = (
    "random draws of augmentation, if there are any and the seed of their generator is known"
)


@dataclass(frozen=True)
class PrivacyStatement:
    """A differential-privacy statement, after "How to DP-fy ML" (arXiv 2303.00654, section 5.3).

    Attributes:
        epsilon: an upper bound on what this run spent, by `accountant`.
        delta: the probability with which the guarantee may fail.
        noise_multiplier: of all that a step released together; the smallest of the run.
        clip: the norm to which each record's gradient was clipped.
        sampling_rate: probability of a record to be in a batch; the largest of the run.
        steps: number of joint releases.
        accountant: how epsilon was computed.
        randomness: where noise and sampling came from.
        isolation: what `check` said of the model. Where it is not "proven", epsilon holds only if
            the records are isolated all the same.
        releases: what the steps released, each with its own noise multiplier.
        weights_origin: what the initial weights came from.
        statistics_origin: what the initial statistics of normalization layers came from.
        substitution: epsilon at the same delta where a record is replaced by another.
        groups: epsilon at the same delta for so many records added or removed: (records, epsilon).
        total_epsilon: of all runs in the ledger together, at the same delta.
        earlier_runs: the names of the others.
        neighbouring: the relation between neighbouring datasets.
        unit: what is protected.
        sampling: how batches were drawn.
        not_covered: what the account does not cover.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    clip: float
    sampling_rate: float
    steps: int
    accountant: str
    randomness: str
    isolation: str
    releases: tuple[Release, ...]
    weights_origin: str
    statistics_origin: str
    substitution: float
    groups: tuple[tuple[int, float], ...]
    total_epsilon: float
    earlier_runs: tuple[str, ...] = ()
    neighbouring: str = "one record added or removed"
    unit: str = "one training record"
    sampling: str = POISSON
    not_covered: tuple[str, ...] = NOT_COVERED

    @property
    def is_sound(self) -> bool:
        """Whether the records were proven to be isolated, without which epsilon may be void."""
        return self.isolation.startswith("proven")

    def to_dict(self) -> dict[str, Any]:
        """The statement as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The statement of which these are the plain data, also after a way through JSON.

        Raises:
            InputError: they are of no statement.
        """
        try:
            values = dict(data)
            values["releases"] = tuple(Release(**release) for release in values["releases"])
            values["groups"] = tuple((int(size), float(e)) for size, e in values["groups"])
            for name in ("earlier_runs", "not_covered"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are not the data of a privacy statement: {error}") from error

    def to_json(self) -> str:
        """The statement as JSON text; what is infinite is the text "inf"."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """The statement as a Markdown table."""
        rows = [f"| {name} | {text} |" for name, text in self._lines()]
        return "\n".join([f"**{self._headline()}**", "", "| | |", "|---|---|", *rows, ""])

    def __str__(self) -> str:
        return "\n".join([self._headline(), *[f"  {n}: {text}" for n, text in self._lines()]])

    def _headline(self) -> str:
        doubt = "" if self.is_sound else f" IF its records were isolated: {self.isolation}"
        if self.is_sound and "loss not judged" in self.isolation:
            doubt = " IF its loss couples no records: it was not judged"
        return f"({self.epsilon:.4g}, {self.delta:g})-differential privacy for {self.unit}{doubt}"

    def _lines(self) -> list[tuple[str, str]]:
        groups = ", ".join(f"{epsilon:.4g} for {size} records" for size, epsilon in self.groups)
        lines = [
            ("neighbouring datasets", self.neighbouring),
            (
                "the same, in other terms",
                f"epsilon {self.substitution:.4g} where a record is replaced, {groups} together",
            ),
            (
                "sampling",
                f"{self.sampling}; rate {self.sampling_rate:.4g}, {self.steps} steps",
            ),
            ("noise multiplier", f"{self.noise_multiplier:.4g} of all releases of a step together"),
            *[
                (
                    "covered",
                    f"at each step {release.name}, with noise of {release.noise_multiplier:.4g} "
                    f"times {_norm(release)}",
                )
                for release in self.releases
            ],
            ("accountant", self.accountant),
            ("randomness", self.randomness),
            ("record isolation", self.isolation),
            ("initial weights", self.weights_origin),
            ("initial statistics", self.statistics_origin),
        ]
        if self.earlier_runs:
            runs = ", ".join(self.earlier_runs)
            lines.append(("with earlier runs", f"epsilon {self.total_epsilon:.4g} ({runs})"))
        return [*lines, *[("not covered", item) for item in self.not_covered]]


def statement_of(
    ledger: Ledger,
    run: str,
    *,
    delta: float,
    accountant: str,
    clip: float,
    releases: Sequence[Release],
    randomness: str,
    isolation: str,
    sampling: str = POISSON,
    weights_origin: str = "unknown",
    statistics_origin: str = "none",
    draws: str | None = DRAWS,
    not_covered: Sequence[str] = (),
) -> PrivacyStatement:
    """The statement of one run of a ledger.

    Args:
        ledger: of all runs on the same records.
        run: the name of the run.
        delta: the probability with which the guarantee may fail.
        accountant: "prv", "rdp" or "pld".
        clip: the clipping norm of the gradients.
        releases: what a step releases.
        randomness: where noise and sampling come from.
        isolation: what `check` said.
        sampling: how batches are drawn.
        weights_origin: "public", "private", "random" or "unknown".
        statistics_origin: the same, or "none" where no layer has any.
        draws: what is to be said of other random numbers than noise and sampling, DRAWS or
            AUGMENTATION; None where nobody can know them.
        not_covered: what else the account does not cover.
    """
    history = ledger.history(run)
    earlier = tuple(name for name in ledger.runs() if name != run)
    found = {
        "initial weights": weights_origin,
        "initial statistics of normalization layers": statistics_origin,
    }
    doubtful = [
        f"the {name}, which came from private records"
        if origin == "private"
        else f"the {name}, if they came from private records"
        for name, origin in found.items()
        if origin in ("private", "unknown")
    ]
    epsilon = epsilon_of(history, delta=delta, accountant=accountant)
    total = epsilon_of(ledger.history(), delta=delta, accountant=accountant) if earlier else epsilon
    return PrivacyStatement(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=min((noise for noise, _, _ in history), default=0.0),
        clip=clip,
        sampling_rate=max((rate for _, rate, _ in history), default=0.0),
        steps=sum(steps for _, _, steps in history),
        accountant=f"{accountant} ({_SOURCES[accountant]})",
        randomness=randomness,
        isolation=isolation,
        releases=_released(ledger.of(run)) or tuple(releases),
        weights_origin=weights_origin,
        statistics_origin=statistics_origin,
        substitution=substitution_epsilon(history, delta=delta),
        groups=tuple((size, group_epsilon(history, size, delta=delta)) for size in GROUPS),
        total_epsilon=total,
        earlier_runs=earlier,
        sampling=sampling,
        not_covered=(*NOT_COVERED, *([draws] if draws else []), *doubtful, *not_covered),
    )


def _released(events: Sequence[Event]) -> tuple[Release, ...]:
    """The releases of a run's steps; where their noise changed, with the smallest."""
    found: dict[str, Release] = {}
    for event in events:
        for release in event.releases:
            before = found.get(release.name)
            if before is None or release.noise_multiplier < before.noise_multiplier:
                found[release.name] = release
    return tuple(found.values())


def _norm(release: Release) -> str:
    return "its clipping norm of that step" if release.clip is None else f"{release.clip:.4g}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if value in (float("inf"), float("-inf")) else value


_SOURCES = {"prv": "opacus", "rdp": "opacus", "pld": "dp-accounting"}


def origin_of(module: nn.Module, given: str) -> str:
    """What the initial statistics came from; "none" where the model has none."""
    if not any("running_mean" in name for name, _ in module.named_buffers()):
        return "none"
    if public_statistics(module) and not released_statistics(module):
        return "public records, fresh at each step"
    return given
