"""The rows of a benchmark as table cells: the one place that decides how each number is written.

The terminal table, the Markdown and the HTML report take their columns, headings and texts from
here, so a number reads the same wherever it stands.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dpnorm.benchmark.results import BenchmarkResult, Row
from dpnorm.leakage.estimate import Estimate

DASH = "—"
ATTACKS = {"lira": "LiRA", "loss": "loss"}  # the first that a run has leads its tables


def one_line(text: str) -> str:
    r"""Writes control characters as escapes, so that a name cannot break a line or a terminal.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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


@dataclass(frozen=True)
class Column:
    """One column: a heading in two lines, the text of a row's cell and a brief one (80 columns)."""

    key: str
    heading: str
    text: Callable[[Row], str]
    brief: Callable[[Row], str]

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("\n", " ")


def _column(
    key: str, heading: str, text: Callable[[Row], str], brief: Callable[[Row], str] | None = None
) -> Column:
    return Column(key, heading, text, brief or text)


def _accuracy(row: Row) -> str:
    return "refused" if row.status == "refused" else plus_minus(row.accuracy)


def _epsilon(row: Row) -> str:
    return DASH if row.status == "refused" else epsilon_text(row.epsilon)


def _attack_columns(attack: str) -> tuple[Column, ...]:
    label = ATTACKS.get(attack, one_line(attack))
    return (
        _column(
            f"{attack}_auc",
            f"{label}\nAUC",
            lambda row: bracketed(row.auc.get(attack), 1, 3),
            lambda row: plus_minus(row.auc.get(attack), 1, 3),
        ),
        _column(
            f"{attack}_tpr",
            f"{label} TPR %\nat 1% FPR",
            lambda row: bracketed(row.tpr.get(attack)),
            lambda row: plus_minus(row.tpr.get(attack)),
        ),
    )


def attacks(rows: Iterable[Row]) -> tuple[str, ...]:
    """The attacks that any row has: LiRA and the loss attack first, others by name."""
    found = {attack for row in rows for attack in (*row.auc, *row.tpr)}
    return (*(a for a in ATTACKS if a in found), *sorted(found - set(ATTACKS)))


def columns(result: BenchmarkResult) -> tuple[Column, ...]:
    """All columns of the run's table, in reading order."""
    lead, *others = [_attack_columns(attack) for attack in attacks(result.rows)] or [()]
    return (
        _column("variant", "variant", lambda row: one_line(row.variant)),
        _column("verdict", "check", lambda row: one_line(row.verdict)),
        _column("accuracy", "accuracy\n%", _accuracy),
        _column("epsilon", "ε\nspent", _epsilon),
        *lead,
        _column(
            "memorized",
            "memorized\n%",
            lambda row: bracketed(row.memorized),
            lambda row: plus_minus(row.memorized),
        ),
        *(column for pair in others for column in pair),
        _column("delta", "δ", lambda row: number_text(row.delta)),
        _column("noise_multiplier", "noise\nmultiplier", lambda r: number_text(r.noise_multiplier)),
        _column("members", "models", lambda row: str(row.members) if row.members else DASH),
    )


@dataclass(frozen=True)
class Section:
    """The rows to compare with each other: one dataset, model and target epsilon."""

    dataset: str
    model: str
    target_epsilon: float
    rows: tuple[Row, ...]

    @property
    def arm(self) -> str:
        """What kind of training the section holds."""
        if math.isinf(self.target_epsilon):
            return "plain training, ε = ∞"
        deltas = sorted({row.delta for row in self.rows if row.delta is not None})
        delta = f", δ = {' or '.join(number_text(d) for d in deltas)}" if deltas else ""
        return f"DP-SGD, ε = {epsilon_text(self.target_epsilon, None)}{delta}"

    @property
    def subject(self) -> str:
        """The dataset and the model, in words."""
        return f"{one_line(self.model)} on {one_line(self.dataset)}"


def sections(result: BenchmarkResult) -> tuple[Section, ...]:
    """Groups the rows by dataset and model as they came, and by epsilon from infinity down."""
    subjects = list(dict.fromkeys((row.dataset, row.model) for row in result.rows))
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in result.rows:
        groups.setdefault((row.dataset, row.model, row.target_epsilon), []).append(row)
    order = sorted(groups, key=lambda key: (subjects.index(key[:2]), -key[2]))
    return tuple(Section(*key, tuple(groups[key])) for key in order)


def why_refused(row: Row) -> str:
    """The reason of one refused row, with its witness."""
    witness = "" if row.witness is None else f", witness {number_text(row.witness)}"
    reason = one_line(row.reason) or "it is not proven to keep each record's contribution its own"
    return f"Check says {one_line(row.verdict)}{witness}: {reason}"


def refusals(result: BenchmarkResult) -> tuple[str, ...]:
    """A sentence for each refused variant, its epsilons taken together."""
    merged: dict[tuple[str, str, str, str], list[str]] = {}
    for section in sections(result):
        for row in section.rows:
            if row.status == "refused":
                key = (row.dataset, row.model, row.variant, why_refused(row))
                merged.setdefault(key, []).append(epsilon_text(row.target_epsilon, None))
    several = len({(row.dataset, row.model) for row in result.rows}) > 1
    return tuple(
        f"{one_line(variant)}{f' ({one_line(model)} on {one_line(dataset)})' if several else ''} "
        f"is refused at ε = {' and '.join(epsilons)}. {why}"
        for (dataset, model, variant, why), epsilons in merged.items()
    )


def reading(result: BenchmarkResult) -> tuple[str, ...]:
    """What each column means, in plain words."""
    estimates = [row.accuracy for row in result.rows if row.accuracy is not None]
    confidence = f"{estimates[0].confidence:.0%}" if estimates else "95%"
    return (
        f"Intervals are at {confidence}; ± is the longer side of one.",
        "An AUC of 0.5, and a TPR of 1% at 1% FPR, is what guessing reaches.",
        "Memorized: the share of outliers that the models get right only when trained on them.",
    )


def subtitle(result: BenchmarkResult) -> str:
    """What was run, in one line."""
    subjects = list(dict.fromkeys(section.subject for section in sections(result)))
    trained = [row for row in result.rows if row.status == "trained"]
    refused = len(result.rows) - len(trained)
    counts = sorted({row.members for row in trained if row.members})
    models = f", {' or '.join(map(str, counts))} models each" if counts else ""
    return (
        f"{' and '.join(subjects)} · {len(trained)} arms trained{models}"
        f"{f', {refused} refused' if refused else ''}"
    )
