"""The sentences of a report: what was run, what was not and why, and what must not be believed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dpnorm.benchmark.results import Audited, BenchmarkResult, Row
from dpnorm.benchmark.tables import (
    VOID,
    apart,
    attack_label,
    attacks,
    bracketed,
    epsilon_text,
    is_trained,
    number_text,
    sections,
)
from dpnorm.text import one_line

VOID_NOTE = (
    "Void: the suite asked for private training of a model that check does not prove. What the "
    "accountant says of it does not hold, because records move one another's gradients (refuted) "
    "or may do so (unproven). No epsilon is printed for it; what leaks from it stands beside."
)
_VERBS = {"refused": "is refused", "failed": "failed", "incomplete": "is incomplete"}
NOT_TRAINED = tuple(_VERBS)


def subtitle(result: BenchmarkResult) -> str:
    """What was run, in one line."""
    subjects = list(dict.fromkeys(section.subject for section in sections(result)))
    trained = [row for row in result.rows if is_trained(row)]
    members = sorted({row.members for row in trained if row.members})
    models = f", {' or '.join(map(str, members))} models each" if members else ""
    counts = {status: sum(row.status == status for row in result.rows) for status in NOT_TRAINED}
    counts[VOID] = sum(row.void for row in trained)
    others = "".join(f", {count} {status}" for status, count in counts.items() if count)
    return f"{' and '.join(subjects)} · {len(trained)} arms trained{models}{others}"


def seeds_text(result: BenchmarkResult) -> str:
    """The seeds of the run."""
    return ", ".join(map(str, sorted({row.seed for row in result.rows})))


def why_missing(row: Row) -> str:
    """The reason of a row that lacks numbers, with the witness of a refused one.

    Of a reason in several lines, such as a traceback, the last one.
    """
    lines = [line for line in row.reason.splitlines() if line.strip()]
    reason = one_line(lines[-1].strip()) if lines else ""
    if row.status != "refused":
        return reason or "no reason was recorded"
    witness = "" if row.witness is None else f", witness {number_text(row.witness)}"
    reason = reason or "it is not proven to keep each record's contribution its own"
    return f"Check says {one_line(row.verdict)}{witness}: {reason}"


def gaps(result: BenchmarkResult) -> dict[str, tuple[str, ...]]:
    """By kind, a sentence for each variant that was not trained or that its audit failed.

    Epsilons are taken together.
    """
    found = {
        status.capitalize(): _merged(result, verb, _has(status)) for status, verb in _VERBS.items()
    }
    found["Not audited"] = _merged(
        result, "has no audited bound", lambda row: row.status == "trained" and bool(row.reason)
    )
    return {kind: lines for kind, lines in found.items() if lines}


def _has(status: str) -> Callable[[Row], bool]:
    return lambda row: row.status == status


def _merged(result: BenchmarkResult, verb: str, fits: Callable[[Row], bool]) -> tuple[str, ...]:
    several = _several_subjects(result)
    merged: dict[tuple[str, str], dict[float, list[int]]] = {}
    for section in sections(result):
        for row in filter(fits, section.rows):
            name = one_line(row.variant) + (f" ({section.subject})" if several else "")
            seeds = merged.setdefault((name, why_missing(row)), {})
            seeds.setdefault(row.target_epsilon, []).append(row.seed)
    everything = sorted({row.seed for row in result.rows})
    return tuple(
        f"{name} {verb} at ε = "
        + " and ".join(_target(epsilon, found, everything) for epsilon, found in seeds.items())
        + f". {why}"
        for (name, why), seeds in merged.items()
    )


def _target(epsilon: float, seeds: Sequence[int], everything: Sequence[int]) -> str:
    """The epsilon, with the seeds where they are not all of them."""
    given = "" if sorted(seeds) == everything else f" (seed {', '.join(map(str, sorted(seeds)))})"
    return epsilon_text(epsilon, None) + given


def _several_subjects(result: BenchmarkResult) -> bool:
    return len({(row.dataset, row.model) for row in result.rows}) > 1


def arm_name(result: BenchmarkResult, row: Row) -> str:
    """A row in words: its variant and target, and whatever else tells the run's rows apart."""
    others = [f", {way.key} {way.text(row)}" for way in apart(result.rows)]
    target = epsilon_text(row.target_epsilon, None)
    return f"{one_line(row.variant)} at target ε = {target}{''.join(others)}"


def void_lines(result: BenchmarkResult) -> tuple[str, ...]:
    """What void means, then what leaks from each void arm; nothing where none is void."""
    voids = [row for row in result.rows if row.void]
    if not voids:
        return ()
    return (VOID_NOTE, *(f"{arm_name(result, row)}: {_leak(row)}." for row in voids))


def _leak(row: Row) -> str:
    if not is_trained(row):
        return f"void, and {row.status}"
    lead = [attack for attack in attacks([row])[:1] if attack in row.auc]
    parts = [f"{attack_label(name)} AUC {bracketed(row.auc[name], 1, 3)}" for name in lead]
    if row.memorized is not None:
        parts.append(f"outliers memorized (%) {bracketed(row.memorized)}")
    parts += [f"{one_line(audit.kind)} audit {bound_text(audit)}" for audit in row.audits]
    return f"ε void; {'; '.join(parts) or 'its leakage was not measured'}"


def number_in(values: Mapping[str, Any] | None, key: str) -> float | None:
    """A number of free-form data, where an infinite one may stand as text; None if there is none.

    >>> number_in({"ceiling": "inf"}, "ceiling"), number_in({"clip": "none"}, "clip")
    (inf, None)
    """
    try:
        return float((values or {})[key])
    except (KeyError, TypeError, ValueError):
        return None


def bound_number(audit: Audited, key: str) -> float:
    """A number of the bound; NaN where it has none."""
    number = number_in(audit.bound, key)
    return math.nan if number is None else number


def bound_text(audit: Audited) -> str:
    """The bound and its ceiling."""
    value, ceiling = (epsilon_text(bound_number(audit, key)) for key in ("epsilon", "ceiling"))
    return f"ε ≥ {value} (ceiling {ceiling})"


def exceeded_lines(result: BenchmarkResult) -> tuple[str, ...]:
    """A warning for each claim below an audited bound; how many bounds there are in all.

    Each bound errs with the probability that its confidence leaves, so that of many a few may.
    """
    bounds = sum(len(row.audits) for row in result.rows)
    return tuple(
        f"{arm_name(result, row)}: the {one_line(audit.kind)} audit shows {bound_text(audit)} at "
        f"{100 * bound_number(audit, 'confidence'):g}% confidence, above the claimed "
        f"{epsilon_text(audit.claimed)}, one of {bounds} bounds in this report. The training does "
        "not keep its claim, or this is a bound that errs: do not rely on it before another audit."
        for row in result.rows
        for audit in row.audits
        if audit.exceeded
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


def statements(result: BenchmarkResult) -> Iterator[tuple[str, str]]:
    """The heading and the privacy statement of each arm that was trained privately.

    That of a void arm tells how it was trained, without any epsilon.
    """
    for row in result.rows:
        private = is_trained(row) and math.isfinite(row.target_epsilon)
        if private and row.void:
            yield f"{arm_name(result, row)}: {VOID}", _void_statement(row)
        elif private and (row.statement_text or row.statement):
            heading = f"{arm_name(result, row)}: spent ε = {epsilon_text(row.epsilon)}"
            yield heading, row.statement_text.strip() or _listed(row.statement or {})


_CONDITIONS = (
    "isolation", "neighbouring", "unit", "sampling", "sampling_rate", "steps", "noise_multiplier",
    "clip", "delta", "accountant", "randomness",
)  # fmt: skip


def _void_statement(row: Row) -> str:
    given = row.statement or {}
    listed = _listed({name: given[name] for name in _CONDITIONS if name in given})
    return f"void: the accountant's figure does not hold; how the arm was trained\n{listed}".strip()


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in values.items())
