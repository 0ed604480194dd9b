"""What a benchmark run found: one row for each dataset, model, variant, epsilon and seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dpnorm.leakage.estimate import Estimate

Status = Literal["trained", "refused", "failed", "incomplete"]


@dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic, thinned for plotting; `fpr` ascends from 0 to 1."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    non_members: int  # a false-positive rate below 1 / non_members cannot be resolved


@dataclass(frozen=True)
class Audited:
    """A lower bound on epsilon beside what is claimed, from one training with canaries.

    Attributes:
        kind: "white-box" or "black-box".
        claimed: epsilon of the statement; infinite for a void one.
        bound: `Bound.to_dict()`: epsilon, ceiling, delta, confidence, standing, method, fixed, ...
        exceeded: whether a bound that is proven to hold is above the claim.
    """

    kind: str
    claimed: float
    bound: Mapping[str, Any]
    exceeded: bool


@dataclass(frozen=True)
class Norms:
    """Gradient norms of the training records of the watched members, before clipping, at an epoch.

    Attributes:
        epoch: after which they were taken.
        rest: quantiles 0.05, 0.25, 0.5, 0.75, 0.95 over records that are no outliers.
        outliers: the same over outliers; empty where there are none.
    """

    epoch: int
    rest: tuple[float, ...]
    outliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One arm of the benchmark, over all its pool members.

    `target_epsilon` is infinity for plain training. A refused row has no measurements: `reason`
    says why and `witness` is the number that refuted the model. An Estimate in `accuracy` holds
    the mean of the members' test accuracies with a 95% Student interval.

    Where `void` holds, the arm was trained privately although `check` does not prove it, because
    the suite asked for it: `epsilon` is what the accountant says, and it is not true. No output
    prints it as an epsilon.
    """

    dataset: str
    model: str
    variant: str
    target_epsilon: float
    verdict: str  # of `check` on the model as it is trained: proven, refuted or unproven
    status: Status
    seed: int = 0
    reason: str = ""  # why it was refused, failed, is incomplete, or was trained and not audited
    witness: float | None = None
    members: int = 0
    accuracy: Estimate | None = None
    void: bool = False
    epsilon: float | None = None  # spent by each member; infinity for plain training
    delta: float | None = None
    noise_multiplier: float | None = None
    auc: Mapping[str, Estimate] = field(default_factory=dict)  # by attack: "loss", "lira"
    tpr: Mapping[str, Estimate] = field(default_factory=dict)  # at 1% FPR, by attack
    roc: Mapping[str, Curve] = field(default_factory=dict)  # by attack
    outlier_auc: Mapping[str, Estimate] = field(default_factory=dict)  # outliers alone, by attack
    memorized: Estimate | None = None  # share of outliers memorized, at the end
    course: tuple[tuple[int, Estimate], ...] = ()  # the same after epochs, where it was watched
    norms: tuple[Norms, ...] = ()
    audits: tuple[Audited, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()  # of `check`, as plain data
    statement: Mapping[str, Any] | None = None  # the privacy statement of the first member
    statement_text: str = ""  # the same as `dpnorm train` prints it


@dataclass(frozen=True)
class Timing:
    """What the parts of one row cost: seconds of wall clock, and memory."""

    dataset: str
    model: str
    variant: str
    target_epsilon: float
    training: float  # summed over members
    attacks: float
    seed: int = 0
    audits: float = 0.0
    peak_bytes: int | None = None  # resident memory of a training process; None if not measured


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
    description: str = ""  # what the suite is for, in its own words
    machine: str = ""  # processor, cores, system
