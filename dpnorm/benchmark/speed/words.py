"""How each number of a speed run is written: the terminal and Markdown take their texts here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from dpnorm.benchmark.speed.interval import CONFIDENCE
from dpnorm.benchmark.speed.result import Curve, Samples, SpeedResult, SpeedRow
from dpnorm.benchmark.tables import DASH, bracketed, number_text
from dpnorm.leakage.estimate import Estimate
from dpnorm.text import one_line

MIB = 2**20


@dataclass(frozen=True)
class Column:
    """A column of a table: a heading, whether it is text, and its cells."""

    heading: str
    words: bool
    cells: tuple[str, ...]


def interval_text(estimate: Estimate | None) -> str:
    """A ratio with its interval, three significant digits of the ratio.

    >>> interval_text(Estimate(2.934, 2.9, 3.0121)), interval_text(Estimate(38.04, 27.2, 39))
    ('2.93 [2.90, 3.01]', '38.0 [27.2, 39.0]')
    """
    if estimate is None:
        return DASH
    size = abs(estimate.value)
    return bracketed(
        estimate, 1, 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    )


def milliseconds_text(samples: Samples) -> str:
    """The median in milliseconds.

    >>> milliseconds_text((0.0123, 0.0125, 0.9)), milliseconds_text((12.3,))
    ('12.5', '12300')
    """
    if not samples:
        return DASH
    value = 1000 * median(samples)
    return f"{value:.0f}" if value >= 1000 else number_text(value)


def megabytes_text(count: int | None) -> str:
    """Bytes in MiB.

    >>> megabytes_text(3 * 2**20), megabytes_text(None)
    ('3', '—')
    """
    return DASH if count is None else number_text(count / MIB)


def row_columns(rows: Sequence[SpeedRow], *, brief: bool) -> list[Column]:
    """The columns of some comparisons; the brief ones fit 80 characters."""

    def column(heading: str, cells: Iterable[str], *, words: bool = False) -> Column:
        return Column(heading, words, tuple(cells))

    found = [
        column("measured", (row.measured for row in rows), words=True),
        column("against", (row.against for row in rows), words=True),
        column("ratio", (interval_text(row.ratio) for row in rows)),
        column("ms", (milliseconds_text(row.numerator) for row in rows)),
        column("MiB", (megabytes_text(row.numerator_bytes) for row in rows)),
    ]
    if brief:
        return found
    return [
        *found[:4],
        column("ms, against", (milliseconds_text(row.denominator) for row in rows)),
        found[4],
        column("MiB, against", (megabytes_text(row.denominator_bytes) for row in rows)),
        column("pairs", (str(len(row.numerator)) if row.numerator else DASH for row in rows)),
    ]


def curve_columns(curve: Curve) -> list[Column]:
    """A line for each size, and one with the exponents."""
    exponents = curve.exponents()

    def times(heading: str, samples: tuple[Samples, ...]) -> Column:
        cells = [milliseconds_text(s) for s in samples]
        return Column(f"{heading}, ms", False, (*cells, bracketed(exponents[heading], 1, 2)))

    found = [
        Column(curve.name, True, (*map(str, curve.sizes), "exponent")),
        times(curve.measured, curve.numerator),
    ]
    if curve.denominator:
        found.append(times(curve.against, curve.denominator))
        ratios = map(interval_text, curve.ratios())
        cells = (*ratios, bracketed(exponents["ratio"], 1, 2))
        found.append(Column("ratio", False, cells))
    return found


def missing(rows: Iterable[SpeedRow]) -> tuple[str, ...]:
    """A sentence for each reason why rows were not measured."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status != "measured":
            key = (row.network, row.status, row.reason)
            merged.setdefault(key, []).append(f"{row.measured} / {row.against}")
    return tuple(
        f"{one_line(network)}: {'; '.join(names)}: {status}: {one_line(reason)}"
        for (network, status, reason), names in merged.items()
    )


def notes(rows: Iterable[SpeedRow]) -> tuple[str, ...]:
    """What a reader must know of single rows, each said once."""
    merged: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.note:
            names = merged.setdefault((row.network, row.note), [])
            if row.measured not in names:
                names.append(row.measured)
    return tuple(
        f"{one_line(network)}: {'; '.join(names)}: {one_line(note)}"
        for (network, note), names in merged.items()
    )


def reading(result: SpeedResult) -> tuple[str, ...]:
    """What the numbers mean, in plain words."""
    estimates = {len(row.numerator): row.ratio for row in result.rows}
    short = [f"{r.network}: {r.measured} / {r.against}" for r in result.rows if _few(r.ratio)]
    for curve in result.curves:
        exponents = curve.exponents().values()
        estimates |= {len(curve.numerator[0]): e for e in exponents}
        short += [f"growth against {curve.name}"] if any(map(_few, exponents)) else []
    reached = ", ".join(
        f"{estimate.confidence:.1%} with {count}"
        for count, estimate in sorted(estimates.items(), reverse=True)
        if estimate is not None
    )
    below = f" Below {CONFIDENCE:.0%}, for want of time: {'; '.join(short)}." if short else ""
    found = [
        "Ratio: the median over pairs of runs that took turns, with the interval of the sign test "
        "(between two order statistics), which needs no assumption about how times are "
        "distributed, only pairs that are independent of each other.",
        f"Confidence reached, by the number of pairs: {reached}.{below}" if reached else "",
        "Intervals speak of this run alone: another one can differ by more.",
        "ms: the median time of one run of what is measured. MiB: by how much one run raises the "
        "memory in use at most (pools work in other processes: not seen).",
    ]
    if result.curves:
        found.append(
            "Exponent a: time grows like size^a; the slope of a line through logarithms, its "
            "interval of the noise of times alone, whether or not they follow a power."
        )
    return tuple(line for line in found if line)


def _few(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.confidence < CONFIDENCE


def where(result: SpeedResult) -> str:
    """The machine, the number of threads and the versions in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    return one_line(f"{result.machine}; {threads} on {result.device}; {versions}")


def title(result: SpeedResult) -> str:
    """What this is, in one line."""
    effort = ", quick" if result.quick else ""
    return f"dpnorm bench speed{effort}: {result.seconds / 60:.1f} minutes"
