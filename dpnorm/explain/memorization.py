"""Topic `memorization`: what a model remembers of outliers, in three small probes."""

import functools

import numpy as np
import torch

from dpnorm.data import Dataset, load
from dpnorm.data.outliers import add_outliers
from dpnorm.explain.explanation import Claim, Measured, Setting
from dpnorm.leakage import attack, gradient_norms, memorization, train_pool
from dpnorm.leakage.estimate import Estimate
from dpnorm.training import TrainConfig, train
from dpnorm.training.networks import build_network

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
        numbers[f"gradient_{who}"] = _gradient_ratio(variant, data)
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
    return Measured(numbers, settings, claims)


def _config(epochs: int) -> TrainConfig:
    return TrainConfig(
        epochs=epochs, batch_size=64, lr=0.05, momentum=0.9, ema=0.0, evaluate_every=0, seed=SEED
    )


def _gradient_ratio(variant: str, data: Dataset) -> float:
    """How much longer an outlier's gradient is, in the median, early in the training."""
    with_outliers = add_outliers(data, "noise", OUTLIERS, seed=SEED)
    torch.manual_seed(SEED)
    network = build_network(MODEL, variant, data)
    model = train(network, with_outliers, _config(EARLY)).model
    records = with_outliers.train
    norms = gradient_norms(model, records.x, records.y, mode="eval").numpy()
    outlier = np.asarray(records.outlier, dtype=bool)
    return float(np.median(norms[outlier]) / np.median(norms[~outlier]))
