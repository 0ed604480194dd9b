"""The plots of the report, each as SVG text with its words and its data beside it."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpnorm.benchmark.figure import INK, literal, look, new_figure, style, to_svg
from dpnorm.benchmark.results import BenchmarkResult, Curve, Row
from dpnorm.benchmark.tables import bracketed, epsilon_text, one_line, plus_minus
from dpnorm.leakage.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ATTACK = "lira"


@dataclass(frozen=True)
class Plot:
    """One figure: SVG text, a title, a sentence for who cannot see it, and the data it shows."""

    title: str
    alt: str
    svg: str
    header: tuple[str, ...]
    data: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Kind:
    key: str
    title: str
    about: str
    shows: Callable[[Row], bool]
    draw: "Callable[[Axes, Sequence[Row]], None]"
    header: tuple[str, ...]
    cells: Callable[[Row], tuple[str, ...]]


def plots(result: BenchmarkResult) -> dict[str, Plot]:
    """Draws every plot that the rows have data for.

    Returns: `accuracy`, `roc`, `memorization` and `leakage`; where the run has several datasets or
    models, one of each a pair, with `-DATASET-MODEL` behind the name.
    """
    subjects = list(dict.fromkeys((row.dataset, row.model) for row in result.rows))
    drawn: dict[str, Plot] = {}
    for dataset, model in subjects:
        rows = [row for row in result.rows if (row.dataset, row.model) == (dataset, model)]
        for kind in _KINDS:
            if any(kind.shows(row) for row in rows):
                key = kind.key if len(subjects) == 1 else f"{kind.key}-{dataset}-{model}"
                key = re.sub(r"[^A-Za-z0-9-]+", "_", key)
                key = key if key not in drawn else f"{key}-{len(drawn)}"
                drawn[key] = _plot(kind, key, rows, f"{one_line(model)} on {one_line(dataset)}")
    return drawn


def _plot(kind: _Kind, key: str, rows: Sequence[Row], subject: str) -> Plot:
    shown = [row for row in rows if kind.shows(row)]
    with style(key):
        figure, axes = new_figure()
        kind.draw(axes, rows)
        _legend(figure, axes)
        svg = to_svg(figure, key)
    data = tuple(kind.cells(row) for row in shown)
    return Plot(f"{kind.title}: {subject}", f"{kind.about} {subject}.", svg, kind.header, data)


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(handles)))


def _variants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.variant for row in rows))


def _epsilons(rows: Sequence[Row]) -> list[float]:
    return sorted({row.target_epsilon for row in rows})


def _label(variant: str, rows: Sequence[Row]) -> str:
    refused = [r.target_epsilon for r in rows if r.variant == variant and r.status == "refused"]
    words = ", ".join(epsilon_text(value, None) for value in sorted(refused))
    return literal(variant) + (f" (refused at {words})" if refused else "")


def _sides(estimate: Estimate, scale: float = 100) -> list[list[float]]:
    """The two lengths of an error bar; a side that is not known is not drawn."""
    sides = (estimate.value - estimate.low, estimate.high - estimate.value)
    return [[max(0.0, scale * side) if math.isfinite(side) else 0.0] for side in sides]


def _positions(epsilons: Sequence[float]) -> dict[float, float]:
    """Places epsilons on a binary logarithmic axis, infinity as a category at its right end."""
    finite = {value: math.log2(value) for value in epsilons if math.isfinite(value)}
    span = max(finite.values()) - min(finite.values()) if finite else 0.0
    right = (max(finite.values()) if finite else 0.0) + max(1.0, span / 2)
    return {value: finite.get(value, right) for value in epsilons}


def _draw_accuracy(axes: "Axes", rows: Sequence[Row]) -> None:
    places = _positions(_epsilons(rows))
    width = max(places.values()) - min(places.values()) or 1.0
    variants = _variants(rows)
    for i, variant in enumerate(variants):
        shift = (i - (len(variants) - 1) / 2) * 0.014 * width
        points = sorted(
            (places[row.target_epsilon] + shift, math.isinf(row.target_epsilon), row.accuracy)
            for row in rows
            if row.variant == variant and row.accuracy is not None
        )
        colour, _, marker = look(variant)
        private = [(x, 100 * a.value) for x, plain, a in points if not plain]
        axes.plot(*zip(*private, strict=True), color=colour) if private else None
        bridge = [(x, 100 * a.value) for x, _, a in points][-2:]
        if len(bridge) == 2 and points[-1][1]:
            axes.plot(*zip(*bridge, strict=True), color=colour, linewidth=1, linestyle=":")
        for x, _, accuracy in points:
            _point(axes, (x, 100 * accuracy.value), colour, marker, y=_sides(accuracy))
        if points:
            axes.plot([], [], color=colour, marker=marker, label=_label(variant, rows))
    ticks = [(x, "none (∞)" if math.isinf(e) else f"{e:g}") for e, x in places.items()]
    axes.set_xticks([x for x, _ in ticks], [words for _, words in ticks])
    axes.set(xlabel="privacy: target ε", ylabel="test accuracy (%)")


def _point(
    axes: "Axes",
    at: tuple[float, float],
    colour: str,
    marker: str,
    size: float = 6,
    *,
    x: list[list[float]] | None = None,
    y: list[list[float]] | None = None,
) -> None:
    axes.errorbar(
        [at[0]], [at[1]], xerr=x, yerr=y, color=colour, marker=marker, markersize=size,
        capsize=2.5, elinewidth=1.2, linestyle="none",
    )  # fmt: skip


def visible(curve: Curve) -> tuple[list[float], list[float]]:
    """The part of a curve that n non-members can resolve: from a false-positive rate of 1/n.

    >>> visible(Curve((0.0, 0.05, 0.2, 1.0), (0.1, 0.3, 0.6, 1.0), non_members=10))
    ([0.1, 0.2, 1.0], [0.3, 0.6, 1.0])
    """
    floor = 1 / max(1, curve.non_members)
    pairs = list(zip(curve.fpr, curve.tpr, strict=True))
    kept = [pair for pair in pairs if pair[0] > floor]
    start = [(floor, max(t for f, t in pairs if f <= floor))] if pairs[0][0] <= floor else []
    fpr, tpr = zip(*(start + kept), strict=True)
    return list(fpr), list(tpr)


def _has_curve(row: Row) -> bool:
    curve = row.roc.get(ATTACK)
    return math.isinf(row.target_epsilon) and ATTACK in row.auc and bool(curve and curve.fpr)


def _draw_roc(axes: "Axes", rows: Sequence[Row]) -> None:
    floor = 1.0
    for row in filter(_has_curve, rows):
        fpr, tpr = visible(row.roc[ATTACK])
        floor = min(floor, fpr[0])
        label = f"{literal(row.variant)}, AUC {row.auc[ATTACK].value:.3f}"
        colour, _, marker = look(row.variant)
        axes.plot(
            fpr, [t if t > 0 else math.nan for t in tpr], color=colour, drawstyle="steps-post",
            marker=marker, markevery=0.12, markersize=4.5, linewidth=1.5, label=label,
        )  # fmt: skip
    axes.plot([floor, 1], [floor, 1], color=INK, linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.08))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")


def _draw_memorization(axes: "Axes", rows: Sequence[Row]) -> None:
    epsilons, variants = _epsilons(rows)[::-1], _variants(rows)
    width = 0.82 / len(variants)
    for i, variant in enumerate(variants):
        colour, label = look(variant).light, _label(variant, rows)
        for row in (row for row in rows if row.variant == variant):
            x = epsilons.index(row.target_epsilon) + (i - (len(variants) - 1) / 2) * width
            if row.memorized is None:
                axes.plot([x], [0.8], marker="x", color=colour, markersize=5, clip_on=False)
                continue
            axes.bar([x], [100 * row.memorized.value], 0.86 * width, color=colour, label=label)
            axes.errorbar(
                [x], [100 * row.memorized.value], yerr=_sides(row.memorized), color=INK,
                capsize=2, elinewidth=1, capthick=1, linestyle="none",
            )  # fmt: skip
            label = ""
    words = ["none (∞)" if math.isinf(e) else f"{e:g}" for e in epsilons]
    axes.set_xticks(range(len(epsilons)), words)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="privacy: target ε", ylabel="outliers memorized (%)", ylim=(0, None))


def _draw_leakage(axes: "Axes", rows: Sequence[Row]) -> None:
    axes.axhline(0.5, color=INK, linestyle="--", linewidth=1)
    sizes = {epsilon: 4.5 + 1.5 * i for i, epsilon in enumerate(_epsilons(rows))}
    for variant in _variants(rows):
        colour, _, marker = look(variant)
        line = []
        for row in sorted(rows, key=lambda row: row.target_epsilon):
            if row.variant != variant or row.accuracy is None or ATTACK not in row.auc:
                continue
            at = (100 * row.accuracy.value, row.auc[ATTACK].value)
            line.append(at)
            bars = {"x": _sides(row.accuracy), "y": _sides(row.auc[ATTACK], 1)}
            _point(axes, at, colour, marker, sizes[row.target_epsilon], **bars)
            axes.annotate(
                epsilon_text(row.target_epsilon, None), at, (5, 4), fontsize=9, color=colour,
                textcoords="offset points",
            )  # fmt: skip
        if line:
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.8, linestyle=":")
            axes.plot(
                [], [], color=colour, marker=marker, linestyle=":", label=_label(variant, rows)
            )
    axes.set(xlabel="test accuracy (%); numbers and sizes: target ε", ylabel="LiRA AUC")


def _has_leakage(row: Row) -> bool:
    return row.accuracy is not None and ATTACK in row.auc


def _tpr_cells(row: Row) -> tuple[str, ...]:
    fpr, tpr = row.roc[ATTACK].fpr, row.roc[ATTACK].tpr
    floor = 1 / max(1, row.roc[ATTACK].non_members)
    rates = (
        f"{100 * max((t for f, t in zip(fpr, tpr, strict=True) if f <= at), default=0):.1f}"
        if at >= floor
        else f"below 1/{row.roc[ATTACK].non_members}"
        for at in (0.001, 0.01, 0.1)
    )
    return one_line(row.variant), bracketed(row.auc[ATTACK], 1, 3), *rates


def _arm(row: Row) -> tuple[str, str]:
    return one_line(row.variant), epsilon_text(row.target_epsilon, None)


_KINDS = (
    _Kind(
        "accuracy",
        "Accuracy against epsilon",
        "Mean test accuracy with 95% intervals against the target epsilon, a line a variant, plain "
        "training at the right;",
        lambda row: row.accuracy is not None,
        _draw_accuracy,
        ("variant", "target ε", "accuracy (%)"),
        lambda row: (*_arm(row), plus_minus(row.accuracy)),
    ),
    _Kind(
        "roc",
        "LiRA on plain training",
        "True-positive against false-positive rate of the membership attack LiRA on models trained "
        "without privacy, both axes logarithmic, a line a variant, the diagonal is guessing;",
        _has_curve,
        _draw_roc,
        ("variant", "AUC", "TPR at 0.1% FPR (%)", "TPR at 1% FPR (%)", "TPR at 10% FPR (%)"),
        _tpr_cells,
    ),
    _Kind(
        "memorization",
        "Outliers memorized",
        "Share of outliers memorized with 95% intervals, a bar a variant, grouped by target "
        "epsilon;",
        lambda row: row.memorized is not None,
        _draw_memorization,
        ("variant", "target ε", "memorized (%)"),
        lambda row: (*_arm(row), bracketed(row.memorized)),
    ),
    _Kind(
        "leakage",
        "Leakage against accuracy",
        "LiRA AUC against mean test accuracy with 95% intervals, a point a variant and target "
        "epsilon, the dashed line at 0.5 is guessing;",
        _has_leakage,
        _draw_leakage,
        ("variant", "target ε", "accuracy (%)", "LiRA AUC"),
        lambda row: (*_arm(row), plus_minus(row.accuracy), bracketed(row.auc[ATTACK], 1, 3)),
    ),
)
