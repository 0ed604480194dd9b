"""Topic `memorization`: what a model remembers of outliers, in three small probes."""

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dpnorm.data import Dataset, load
from dpnorm.data.outliers import add_outliers
from dpnorm.explain.explanation import Claim, Measured, Picture, Setting
from dpnorm.figures import INK, legend_below, look, new_figure
from dpnorm.leakage import attack, gradient_norms, memorization, train_pool
from dpnorm.leakage.estimate import Estimate
from dpnorm.training import TrainConfig, train
from dpnorm.training.networks import build_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHISKERS = 5, 95  # percentiles

Norms = tuple[NDArray[np.float64], NDArray[np.float64]]

MODEL, MODELS, OUTLIERS, EPOCHS, EARLY, SEED = "lenet", 10, 60, 8, 2, 0


def measure(subject: str = "batch", control: str = "none", other: str = "group") -> Measured:
    """Trains models on random halves of records and outliers, with each normalization.

    Args:
        subject: the variant that is said to memorize more.
        control: the variant that is said to memorize less.
        other: a third, for comparison.
    """
    data = load("digits")
    numbers: dict[str, float | Estimate] = {}
    memorized: dict[str, Estimate] = {}
    auc: dict[str, Estimate] = {}
    norms: dict[str, Norms] = {}
    for who, variant in (("subject", subject), ("control", control), ("other", other)):
        pool = train_pool(
            functools.partial(build_network, MODEL, variant, data),
            data,
            _config(EPOCHS),
            size=MODELS,
            outliers=OUTLIERS,
            seed=SEED,
        )
        scores = attack(pool, "loss")
        memorized[who] = numbers[f"memorized_{who}"] = memorization(pool).outliers
        auc[who] = numbers[f"auc_{who}"] = scores.on(scores.outlier).auc
        ordinary, outliers = norms[variant] = _gradient_norms(variant, data)
        numbers[f"gradient_{who}"] = float(np.median(outliers) / np.median(ordinary))
    settings: dict[str, Setting] = {
        "subject": subject, "control": control, "other": other, "model": MODEL, "models": MODELS,
        "outliers": OUTLIERS, "epochs": EPOCHS, "early": EARLY,
    }  # fmt: skip
    claims = (
        Claim(
            f"with {subject} normalization more outliers are memorized than with {control}",
            memorized["subject"].low > memorized["control"].high,
        ),
        Claim(
            f"with {subject} normalization the loss tells more of who was trained on",
            auc["subject"].low > auc["control"].high,
        ),
        Claim(
            f"with {other} normalization more is memorized than with {control}, too",
            memorized["other"].low > memorized["control"].high,
        ),
        Claim(
            f"with {subject} normalization an outlier's gradient exceeds the others' by more",
            float(numbers["gradient_subject"]) > 2 * float(numbers["gradient_control"]),
        ),
    )
    variants = {"subject": subject, "control": control, "other": other}
    probes = {variant: (memorized[who], auc[who]) for who, variant in variants.items()}
    compared = f"{subject}, {control} and {other} normalization"
    pictures = (
        Picture(
            "outliers",
            "How many of the outliers are memorized, and how well an observer tells which of them "
            f"were trained on, with intervals: {compared}.",
            functools.partial(_probes, probes),
        ),
        Picture(
            "gradients",
            f"How long the gradients of ordinary records and of outliers are after {EARLY} epochs: "
            f"{compared}.",
            functools.partial(_lengths, norms),
        ),
    )
    return Measured(numbers, settings, claims, pictures)


def _config(epochs: int) -> TrainConfig:
    return TrainConfig(
        epochs=epochs, batch_size=64, lr=0.05, momentum=0.9, ema=0.0, evaluate_every=0, seed=SEED
    )


def _gradient_norms(variant: str, data: Dataset) -> Norms:
    """How long the gradients of ordinary records and of outliers are, early in the training."""
    with_outliers = add_outliers(data, "noise", OUTLIERS, seed=SEED)
    torch.manual_seed(SEED)
    network = build_network(MODEL, variant, data)
    model = train(network, with_outliers, _config(EARLY)).model
    records = with_outliers.train
    norms = gradient_norms(model, records.x, records.y, mode="eval").numpy()
    outlier = np.asarray(records.outlier, dtype=bool)
    return norms[~outlier], norms[outlier]


def _probes(probes: dict[str, tuple[Estimate, Estimate]]) -> "Figure":
    figure, axes = new_figure()
    for variant, (memorized, auc) in probes.items():
        one = look(variant)
        axes.errorbar(
            [100 * memorized.value], [auc.value], xerr=100 * _sides(memorized), yerr=_sides(auc),
            color=one.light, capsize=3, elinewidth=1.2,
        )  # fmt: skip
        axes.plot([100 * memorized.value], [auc.value], one.marker, color=one.light, label=variant)
    axes.axhline(0.5, color=INK, linestyle="--", linewidth=1, label="chance")
    axes.set_xlim(min(0, axes.get_xlim()[0]), 101)
    axes.set_ylim(top=1.01)
    axes.set_xlabel("outliers memorized (%)")
    axes.set_ylabel("AUC of an observer of the loss")
    axes.set_title(f"Outliers, {memorized.confidence:.0%} intervals")
    legend_below(figure, axes)
    return figure


def _sides(estimate: Estimate) -> NDArray[np.float64]:
    """(2, 1): the two lengths of an error bar."""
    return np.array([[estimate.value - estimate.low], [estimate.high - estimate.value]])


def _lengths(norms: dict[str, Norms]) -> "Figure":
    figure, axes = new_figure()
    for i, (variant, both) in enumerate(norms.items()):
        one = look(variant).light
        fillings = ("white", one), (one, "white")
        for lengths, side, (filling, median) in zip(both, (-0.2, 0.2), fillings, strict=True):
            axes.boxplot(
                [lengths], positions=[i + side], widths=0.32, whis=_WHISKERS, showfliers=False,
                patch_artist=True, boxprops={"facecolor": filling, "edgecolor": one},
                medianprops={"color": median, "linewidth": 1.4},
                whiskerprops={"color": one}, capprops={"color": one},
            )  # fmt: skip
    for label, filling in (("ordinary records", "white"), ("outliers", INK)):
        axes.plot([], [], "s", color=filling, markeredgecolor=INK, markersize=9, label=label)
    axes.set_xticks(range(len(norms)), [*norms])
    axes.set_yscale("log")
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("normalization")
    axes.set_ylabel("length of a record's gradient")
    low, high = _WHISKERS
    axes.set_title(f"After {EARLY} epochs: median, middle half, {low}% to {high}%", fontsize=10)
    legend_below(figure, axes)
    return figure
