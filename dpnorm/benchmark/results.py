"""What a benchmark run found: one row for each dataset, model, variant and epsilon."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dpnorm.leakage.estimate import Estimate


@dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic, thinned for plotting; `fpr` ascends from 0 to 1."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    non_members: int  # a false-positive rate below 1 / non_members cannot be resolved


@dataclass(frozen=True)
class Row:
    """One arm of the benchmark, over all its pool members.

    `target_epsilon` is infinity for plain training. A refused row has no measurements: `reason`
    says why and `witness` is the number that refuted the model. An Estimate in `accuracy` holds
    the mean of the members' test accuracies with a 95% Student interval.
    """

    dataset: str
    model: str
    variant: str
    target_epsilon: float
    verdict: str  # of `check` on the model as it is trained: proven, refuted or unproven
    status: Literal["trained", "refused"]
    reason: str = ""
    witness: float | None = None
    members: int = 0
    accuracy: Estimate | None = None
    epsilon: float | None = None  # spent by each member; infinity for plain training
    delta: float | None = None
    noise_multiplier: float | None = None
    auc: Mapping[str, Estimate] = field(default_factory=dict)  # by attack: "loss", "lira"
    tpr: Mapping[str, Estimate] = field(default_factory=dict)  # at 1% FPR, by attack
    roc: Mapping[str, Curve] = field(default_factory=dict)  # by attack
    memorized: Estimate | None = None  # share of outliers memorized


@dataclass(frozen=True)
class Timing:
    """How long the parts of one row took, in seconds of one core."""

    dataset: str
    model: str
    variant: str
    target_epsilon: float
    training: float  # summed over members
    attacks: float


@dataclass(frozen=True)
class BenchmarkResult:
    """Everything that the report of one run shows."""

    name: str
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    suite: Mapping[str, Any]  # the suite as it was run, every default filled in
    versions: Mapping[str, str]  # dpnorm, torch, opacus, numpy, python
    command: str  # the exact command that makes this run again
    notes: tuple[str, ...] = ()  # what a reader must know to read the numbers rightly
