"""The rows of a benchmark as table cells: the one place that decides how each number is written.

The terminal table, the Markdown and the HTML report take their columns, headings and texts from
here, so a number reads the same wherever it stands.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.leakage.estimate import Estimate
from dpnorm.text import one_line

DASH = "—"
VOID = "void"  # in the place of an epsilon that does not hold
ATTACKS = {"lira": "LiRA", "loss": "loss"}  # the first that a run has leads its tables


def epsilon_text(value: float | None, digits: int | None = 2) -> str:
    """Writes an epsilon: `digits` decimals, or as short as possible for a target (None).

    >>> epsilon_text(7.981), epsilon_text(8.0, None), epsilon_text(float("inf")), epsilon_text(None)
    ('7.98', '8', '∞', '—')
    """
    if value is None:
        return DASH
    if math.isinf(value):
        return "∞"
    return f"{value:g}" if digits is None else f"{value:.{digits}f}"


def number_text(value: float | None) -> str:
    """Writes a number with three significant digits, an exponent without padding.

    >>> number_text(1e-5), number_text(5.8132), number_text(float("inf")), number_text(None)
    ('1e-5', '5.81', '∞', '—')
    """
    if value is None:
        return DASH
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def plus_minus(estimate: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    """Writes an estimate with the longer side of its interval, scaled (to percent by default).

    >>> plus_minus(Estimate(0.953, 0.941, 0.965)), plus_minus(Estimate(0.52, 0.5, 0.53), 1, 3)
    ('95.3 ± 1.2', '0.520 ± 0.020')
    """
    if estimate is None:
        return DASH
    side = scale * max(estimate.high - estimate.value, estimate.value - estimate.low)
    half = f"{side:.{digits}f}" if math.isfinite(side) else DASH
    return f"{scale * estimate.value:.{digits}f} ± {half}"


def bracketed(estimate: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    """Writes an estimate with both ends of its interval, scaled (to percent by default).

    >>> bracketed(Estimate(0.52, 0.5, 0.53), 1, 3)
    '0.520 [0.500, 0.530]'
    """
    if estimate is None:
        return DASH
    ends = (scale * estimate.low, scale * estimate.high)
    low, high = (f"{end:.{digits}f}" if math.isfinite(end) else DASH for end in ends)
    return f"{scale * estimate.value:.{digits}f} [{low}, {high}]"


Value = float | str | None


@dataclass(frozen=True)
class Column:
    """One column of results.

    Attributes:
        key: its name.
        heading: in up to two lines.
        text: of a row's cell.
        brief: the same where a line has 80 columns.
        value: by which rows are sorted; None where there is none.
    """

    key: str
    heading: str
    text: Callable[[Row], str]
    brief: Callable[[Row], str]
    value: Callable[[Row], Value]

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("\n", " ")


def _column(
    key: str, heading: str, text: Callable[[Row], str], value: Callable[[Row], Value] | None = None
) -> Column:
    return Column(key, heading, text, text, value or text)


def _estimates(
    key: str,
    heading: str,
    of: Callable[[Row], Estimate | None],
    scale: float = 100,
    digits: int = 1,
) -> Column:
    def value(row: Row) -> float | None:
        estimate = of(row)
        return None if estimate is None else estimate.value

    return Column(
        key,
        heading,
        lambda row: bracketed(of(row), scale, digits),
        lambda row: plus_minus(of(row), scale, digits),
        value,
    )


def is_trained(row: Row) -> bool:
    """Whether the row has numbers; any other has a status and a reason."""
    return row.status == "trained"


def claimed_text(row: Row) -> str:
    """The epsilon that a row may claim, or that it is void.

    >>> claimed_text(Row("d", "m", "batch", 8.0, "refuted", "trained", void=True, epsilon=7.98))
    'void'
    """
    if row.void:
        return VOID
    return epsilon_text(row.epsilon) if is_trained(row) else DASH


def attack_label(attack: str) -> str:
    """How an attack is written."""
    return ATTACKS.get(attack, one_line(attack))


def attacks(rows: Iterable[Row]) -> tuple[str, ...]:
    """The attacks that any row has: LiRA and the loss attack first, others by name."""
    found = {attack for row in rows for attack in (*row.auc, *row.tpr, *row.outlier_auc)}
    return (*(a for a in ATTACKS if a in found), *sorted(found - set(ATTACKS)))


def _attack_columns(attack: str) -> tuple[Column, Column]:
    label = attack_label(attack)
    return (
        _estimates(f"{attack}_auc", f"{label}\nAUC", lambda row: row.auc.get(attack), 1, 3),
        _estimates(f"{attack}_tpr", f"{label} TPR %\nat 1% FPR", lambda row: row.tpr.get(attack)),
    )


def _outlier_columns(rows: Sequence[Row]) -> Iterator[Column]:
    for attack in attacks(rows):
        if any(attack in row.outlier_auc for row in rows):

            def of(row: Row, attack: str = attack) -> Estimate | None:
                return row.outlier_auc.get(attack)

            heading = f"{attack_label(attack)} AUC\noutliers"
            yield _estimates(f"{attack}_outlier_auc", heading, of, 1, 3)


def columns(result: BenchmarkResult) -> tuple[Column, ...]:
    """The columns of a section, in reading order."""
    pairs: list[tuple[Column, ...]] = [_attack_columns(name) for name in attacks(result.rows)]
    lead, *others = pairs or [()]
    accuracy = _estimates("accuracy", "accuracy\n%", lambda row: row.accuracy)

    def accuracy_text(row: Row) -> str:
        return accuracy.brief(row) if is_trained(row) else row.status

    return (
        _VARIANT,
        _column("verdict", "check", lambda row: one_line(row.verdict)),
        _column("accuracy", accuracy.heading, accuracy_text, accuracy.value),
        _column("epsilon", "ε\nspent", claimed_text, lambda row: None if row.void else row.epsilon),
        *lead,
        _estimates("memorized", "memorized\n%", lambda row: row.memorized),
        *_outlier_columns(result.rows),
        *(column for pair in others for column in pair),
        _column("delta", "δ", lambda row: number_text(row.delta), lambda row: row.delta),
        _column(
            "noise_multiplier",
            "noise\nmultiplier",
            lambda row: number_text(row.noise_multiplier),
            lambda row: row.noise_multiplier,
        ),
        _column(
            "members",
            "models",
            lambda row: str(row.members) if row.members else DASH,
            lambda row: row.members or None,
        ),
    )


_VARIANT = _column("variant", "variant", lambda row: one_line(row.variant))
_TARGET = _column(
    "target_epsilon",
    "target\nε",
    lambda row: epsilon_text(row.target_epsilon, None),
    lambda row: row.target_epsilon,
)


def flat_columns(result: BenchmarkResult) -> tuple[Column, ...]:
    """The columns of one table for all rows: those of a section, and what tells sections apart."""
    return (_VARIANT, *apart(result.rows), _TARGET, *columns(result)[1:])


def apart(rows: Iterable[Row]) -> tuple[Column, ...]:
    """Of dataset, model and seed those in which the rows differ."""
    rows = tuple(rows)
    ways = (
        _column("dataset", "dataset", lambda row: one_line(row.dataset)),
        _column("model", "model", lambda row: one_line(row.model)),
        _column("seed", "seed", lambda row: str(row.seed), lambda row: row.seed),
    )
    return tuple(way for way in ways if len({getattr(row, way.key) for row in rows}) > 1)


@dataclass(frozen=True)
class Section:
    """The rows to compare with each other: one dataset, model, target epsilon and seed."""

    dataset: str
    model: str
    target_epsilon: float
    rows: tuple[Row, ...]
    seed: int | None = None  # where the run has several

    @property
    def arm(self) -> str:
        """What kind of training the section holds."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        if math.isinf(self.target_epsilon):
            return f"plain training, ε = ∞{seed}"
        deltas = sorted({row.delta for row in self.rows if row.delta is not None})
        delta = f", δ = {' or '.join(number_text(d) for d in deltas)}" if deltas else ""
        return f"DP-SGD, target ε = {epsilon_text(self.target_epsilon, None)}{delta}{seed}"

    @property
    def subject(self) -> str:
        """The dataset and the model, in words."""
        return f"{one_line(self.model)} on {one_line(self.dataset)}"


def sections(result: BenchmarkResult, *, by_seed: bool = True) -> tuple[Section, ...]:
    """Groups the rows by dataset and model as they came, by epsilon from infinity down, by seed."""
    subjects = list(dict.fromkeys((row.dataset, row.model) for row in result.rows))
    split = by_seed and len({row.seed for row in result.rows}) > 1
    groups: dict[tuple[int, float, int], list[Row]] = {}
    for row in result.rows:
        subject = subjects.index((row.dataset, row.model))
        groups.setdefault((subject, -row.target_epsilon, row.seed if split else 0), []).append(row)
    return tuple(
        Section(*subjects[subject], -negated, tuple(rows), seed if split else None)
        for (subject, negated, seed), rows in sorted(groups.items(), key=lambda item: item[0])
    )
