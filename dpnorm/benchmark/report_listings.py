"""The smaller tables of a report: verdicts, audits, cost. Each is written by HTML and Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpnorm.benchmark.report_words import bound_number, number_in
from dpnorm.benchmark.results import BenchmarkResult, Row, Timing
from dpnorm.benchmark.tables import DASH, VOID, Value, apart, epsilon_text, number_text
from dpnorm.text import one_line


@dataclass(frozen=True)
class Cell:
    """A cell: its text, and the value by which rows are sorted."""

    text: str
    value: Value = None


@dataclass(frozen=True)
class Listing:
    """A table of cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def words(text: str) -> Cell:
    """A cell of words, on one line."""
    line = one_line(text)
    return Cell(line, line)


def number(
    value: float | None, write: Callable[[float], str] = number_text, missing: str = DASH
) -> Cell:
    """A cell of one number; `missing` where there is none."""
    return Cell(missing if value is None else write(value), value)


def verdicts(result: BenchmarkResult) -> Listing:
    """What check says of each variant, with its witness, its findings and what followed."""
    subject = [way for way in apart(result.rows) if way.key != "seed"]
    rows = [
        (
            words(arms[0].variant),
            *(words(way.text(arms[0])) for way in subject),
            words(arms[0].verdict),
            number(max((r.witness for r in arms if r.witness is not None), default=None)),
            words(_codes(findings_of(arms)) or DASH),
            words(_outcome(arms)),
        )
        for arms in judged(result)
    ]
    names = ("variant", *(way.key for way in subject), "check", "witness", "findings", "outcome")
    return Listing(names, tuple(rows))


def judged(result: BenchmarkResult) -> list[list[Row]]:
    """The rows of one dataset, model and variant on which check says the same."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in result.rows:
        key = row.dataset, row.model, row.variant, row.verdict
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def findings_of(rows: Iterable[Row]) -> tuple[Mapping[str, Any], ...]:
    """The findings of the first row that has any."""
    return next((row.findings for row in rows if row.findings), ())


def _codes(findings: Sequence[Mapping[str, Any]]) -> str:
    codes = [str(finding.get("code", "")) for finding in findings]
    return ", ".join(
        code if codes.count(code) == 1 else f"{code} × {codes.count(code)}"
        for code in dict.fromkeys(codes)
    )


def _outcome(rows: Sequence[Row]) -> str:
    targets: dict[str, set[float]] = {}
    for row in rows:
        targets.setdefault(VOID if row.void else row.status, set()).add(row.target_epsilon)
    return "; ".join(
        f"{status} at ε = {', '.join(epsilon_text(e, None) for e in sorted(epsilons)[::-1])}"
        for status, epsilons in targets.items()
    )


def findings(rows: Sequence[Row]) -> Listing:
    """Each finding in full."""
    names = ("code", "path", "module", "message", "witness", "remedy", "location")
    lines = []
    for finding in findings_of(rows):
        cells = {name: words(str(finding.get(name) or DASH)) for name in names}
        cells["witness"] = number(number_in(finding, "witness"))
        lines.append(tuple(cells.values()))
    return Listing(names, tuple(lines))


def audits(result: BenchmarkResult) -> Listing:
    """Each audited lower bound beside its claim."""
    ways = apart(result.rows)
    rows = []
    for row in result.rows:
        for audit in row.audits:
            claim = None if row.void else audit.claimed
            percent = f"{100 * bound_number(audit, 'confidence'):g}%"
            rows.append(
                (
                    words(row.variant),
                    *(Cell(way.text(row), way.value(row)) for way in ways),
                    number(row.target_epsilon, _target),
                    words(audit.kind),
                    number(claim, epsilon_text, VOID),
                    number(bound_number(audit, "epsilon"), epsilon_text),
                    number(bound_number(audit, "ceiling"), epsilon_text),
                    words(percent),
                    words(str(audit.bound.get("standing", DASH))),
                    words("exceeded" if audit.exceeded else VOID if row.void else "not exceeded"),
                )
            )
    header = ("variant", *(way.key for way in ways), "target ε", "audit", "claimed ε",
              "audited ε, at least", "ceiling", "confidence", "standing", "claim")  # fmt: skip
    return Listing(header, tuple(rows))


def _target(value: float) -> str:
    return epsilon_text(value, None)


def costs(result: BenchmarkResult) -> Listing:
    """Seconds and memory of each arm."""
    keys = [key for key in ("dataset", "model", "seed") if _differ(result.timings, key)]
    rows = []
    for timing in result.timings:
        peak = None if timing.peak_bytes is None else timing.peak_bytes / 2**20
        where = [getattr(timing, key) for key in keys]
        rows.append(
            (
                words(timing.variant),
                *(words(w) if isinstance(w, str) else number(w, str) for w in where),
                number(timing.target_epsilon, _target),
                *(
                    number(s, "{:.1f}".format)
                    for s in (timing.training, timing.attacks, timing.audits)
                ),
                number(peak, "{:.0f}".format),
            )
        )
    header = ("variant", *keys, "target ε", "training (s)", "attacks (s)", "audits (s)",
              "peak memory (MiB)")  # fmt: skip
    return Listing(header, tuple(rows))


def _differ(timings: Sequence[Timing], key: str) -> bool:
    return len({getattr(timing, key) for timing in timings}) > 1
