"""What every plot of a report is made from: rows by arm, looks, axes, and the plot that results."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpnorm.benchmark.exports import Scalar
from dpnorm.benchmark.results import BenchmarkResult, Row, Timing
from dpnorm.benchmark.tables import VOID, attacks, epsilon_text, is_trained
from dpnorm.figures import (
    INK,
    LOOKS,
    Look,
    legend_below,
    literal,
    look,
    looks,
    new_figure,
    style,
    to_svg,
)
from dpnorm.leakage.estimate import Estimate
from dpnorm.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = "Where there are several seeds, a value is their mean, and its interval holds all of theirs"


@dataclass(frozen=True)
class Grid:
    """Numbers with their names."""

    header: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        key: its name, unique in a report.
        part: the part of the report to which it belongs.
        title: what it shows, of which model and data.
        alt: a sentence on how to read it.
        svg: the picture.
        data: every number that it shows.
        brief: what of them stands in the report as a table.
    """

    key: str
    part: str
    title: str
    alt: str
    svg: str
    data: Grid
    brief: Grid


@dataclass(frozen=True)
class Arm:
    """The rows of one variant and target epsilon that were trained, one a seed."""

    variant: str
    target_epsilon: float
    rows: tuple[Row, ...]

    @property
    def void(self) -> bool:
        return any(row.void for row in self.rows)

    def over_seeds(self, of: Callable[[Row], Estimate | None]) -> Estimate | None:
        """The mean over seeds, with the lowest and the highest end of their intervals."""
        found = [estimate for row in self.rows if (estimate := of(row)) is not None]
        if len(found) < 2:
            return found[0] if found else None
        mean = math.fsum(estimate.value for estimate in found) / len(found)
        low, high = min(e.low for e in found), max(e.high for e in found)
        return Estimate(mean, low, high, found[0].confidence)


@dataclass(frozen=True)
class Subject:
    """What one set of plots is about: a model on a dataset."""

    name: str
    suffix: str  # of the keys of its plots
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    looks: Mapping[str, Look]

    @property
    def attack(self) -> str:
        """The strongest attack that was run."""
        return next(iter(attacks(self.rows)), "")

    @property
    def trained(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if is_trained(row))

    @property
    def arms(self) -> tuple[Arm, ...]:
        groups: dict[tuple[str, float], list[Row]] = {}
        for row in self.trained:
            groups.setdefault((row.variant, row.target_epsilon), []).append(row)
        return tuple(Arm(*key, tuple(rows)) for key, rows in groups.items())

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.variant for row in self.rows))

    @property
    def epsilons(self) -> tuple[float, ...]:
        return tuple(sorted({row.target_epsilon for row in self.rows}))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({row.seed for row in self.rows}))

    def label(self, variant: str) -> str:
        """The variant in a legend, with where it is void or was not trained."""
        found: dict[str, set[float]] = {}
        for row in self.rows:
            if row.variant == variant and (row.void or not is_trained(row)):
                word = VOID if row.void else row.status
                found.setdefault(word, set()).add(row.target_epsilon)
        parts = [
            f"{word} at {', '.join(epsilon_text(e, None) for e in sorted(epsilons))}"
            for word, epsilons in found.items()
        ]
        return literal(variant) + (f" ({'; '.join(parts)})" if parts else "")


def subjects(result: BenchmarkResult) -> Iterator[Subject]:
    """The subjects in the order of the rows."""
    colours = palette([row.variant for row in result.rows])
    pairs = list(dict.fromkeys((row.dataset, row.model) for row in result.rows))
    suffixes: list[str] = []
    for dataset, model in pairs:
        suffix = slug(f"-{dataset}-{model}") if len(pairs) > 1 else ""
        suffix += f"-{len(suffixes)}" if suffix in suffixes else ""
        suffixes.append(suffix)
        yield Subject(
            f"{one_line(model)} on {one_line(dataset)}",
            suffix,
            tuple(row for row in result.rows if (row.dataset, row.model) == (dataset, model)),
            tuple(t for t in result.timings if (t.dataset, t.model) == (dataset, model)),
            colours,
        )


def slug(text: str) -> str:
    """The text as part of a name that HTML and files can hold."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text)


def palette(variants: Sequence[str]) -> dict[str, Look]:
    """A look a variant: all different up to the number of looks there are."""
    names = list(dict.fromkeys(variants))
    apart = names[: len(LOOKS)]
    return dict(zip(apart, looks(apart), strict=True)) | {
        name: look(name) for name in names[len(LOOKS) :]
    }


def plot(
    key: str,
    title: str,
    alt: str,
    subject: Subject,
    draw: "Callable[[Axes], None]",
    data: Grid,
    *,
    brief: Grid | None = None,
) -> Plot:
    """Draws a figure, higher for a longer legend; its part is what its key begins with."""
    part, name = key.split("-")[0], slug(key) + subject.suffix
    with style(name):
        figure, axes = new_figure(5.4, 3.8)
        draw(axes)
        figure.set_figheight(3.8 + 0.1 * len(axes.get_legend_handles_labels()[1]))
        legend_below(figure, axes)
        svg = to_svg(figure, name)
    return Plot(name, part, f"{title}: {subject.name}", alt, svg, data, brief or data)


def sides(estimate: Estimate, scale: float = 100) -> list[list[float]]:
    """The two lengths of an error bar; a side that is not known is not drawn."""
    lengths = (estimate.value - estimate.low, estimate.high - estimate.value)
    return [[max(0.0, scale * side) if math.isfinite(side) else 0.0] for side in lengths]


def point(
    axes: "Axes",
    at: tuple[float, float],
    look: Look,
    *,
    hollow: bool = False,
    size: float = 6,
    x: list[list[float]] | None = None,
    y: list[list[float]] | None = None,
) -> None:
    """A marker with the bars of its intervals; hollow for a void arm."""
    axes.errorbar(
        [at[0]], [at[1]], xerr=x, yerr=y, color=look.light, marker=look.marker,
        markersize=size + 2 * hollow, capsize=2, elinewidth=1, linestyle="none",
        markeredgewidth=1.2 if hollow else 0.4,
        markerfacecolor="none" if hollow else look.light,
    )  # fmt: skip


def void_entry(axes: "Axes", subject: Subject) -> None:
    """Says in the legend that hollow markers are void, where there are any."""
    if any(arm.void for arm in subject.arms):
        axes.plot([], [], "o", color=INK, markerfacecolor="none", label="hollow: void")


def epsilon_ticks(axes: "Axes", places: Mapping[float, float]) -> None:
    """Writes target epsilons below the axis."""
    words = ["none (∞)" if math.isinf(epsilon) else f"{epsilon:g}" for epsilon in places]
    axes.set_xticks(list(places.values()), words)
    axes.set_xlabel("privacy: target ε")


def estimate_cells(estimate: Estimate | None) -> tuple[float | None, ...]:
    """Value, low and high."""
    if estimate is None:
        return (None,) * 3
    return estimate.value, estimate.low, estimate.high


def arm_cells(row: Row) -> tuple[Scalar, ...]:
    """What names a row in the data of a plot; `arm_names` names these cells."""
    return row.variant, row.target_epsilon, row.seed, VOID if row.void else row.status


arm_names = ("variant", "target_epsilon", "seed", "status")


def three(name: str) -> tuple[str, str, str]:
    """The names of `estimate_cells`."""
    return name, f"{name}_low", f"{name}_high"
