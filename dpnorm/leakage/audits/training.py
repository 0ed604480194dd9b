"""An audit of one private training, as its user runs it: white-box and black-box."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpnorm.data import Dataset
from dpnorm.errors import InputError
from dpnorm.leakage.audits.audit import audit
from dpnorm.leakage.audits.canaries import GradientCanaries
from dpnorm.leakage.audits.plan import DEFAULT_SHARES, GuessPlan
from dpnorm.leakage.bound import Bound
from dpnorm.leakage.members import expected_privacy
from dpnorm.leakage.observe import observed_logits
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.signals import log_odds
from dpnorm.training import TrainConfig, train

if TYPE_CHECKING:
    from torch import nn

    from dpnorm.privacy import PrivacyConfig

AUDITED_MODES = ("hooks", "lean", "functorch")
_MOST_RECORDS = 1000


@dataclass(frozen=True)
class TrainingAudit:
    """What one private training claims, and what an audit of it shows.

    Attributes:
        claimed: epsilon of the training's statement, at `delta`, for one record added or removed.
        delta: of the claim and of both bounds.
        white_box: from gradient canaries, whose releases the auditor sees.
        black_box: from the losses of records under the final model.
        accuracy: of the model, on the test records; NaN without.
        gaussian_claim: whether what is claimed is itself a Gaussian trade-off, as at a sampling
            rate of 1. A bound that assumes that family then contradicts the claim as well.
    """

    claimed: float
    delta: float
    white_box: Bound
    black_box: Bound
    accuracy: float
    gaussian_claim: bool = False

    @property
    def exceeded(self) -> bool:
        """Whether a bound that must keep the claim is above it: a fault, or bad luck.

        Such are rigorous bounds; where the claim is a Gaussian trade-off also those that assume it.
        """
        standings = {"rigorous"}
        if self.gaussian_claim:
            standings.add("assumes a trade-off family")
        return any(
            bound.standing in standings and bound.value > self.claimed
            for bound in (self.white_box, self.black_box)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "claimed_epsilon": self.claimed if math.isfinite(self.claimed) else str(self.claimed),
            "delta": self.delta,
            "exceeded": self.exceeded,
            "gaussian_claim": self.gaussian_claim,
            "accuracy": None if math.isnan(self.accuracy) else self.accuracy,
            "white_box": self.white_box.to_dict(),
            "black_box": self.black_box.to_dict(),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        error = 100 * (1 - self.white_box.confidence)
        verdict = (
            "A BOUND IS ABOVE THE CLAIM: the training does not keep it, or this is one of the\n"
            f"at most {2 * error:g}% of audits of a right one in which a bound errs."
            if self.exceeded
            else "No bound is above the claim, which shows no fault, and proves no claim."
        )
        return "\n".join(
            [
                f"claimed: epsilon {self.claimed:.3f} at delta {self.delta:g}, one record added or "
                "removed",
                "",
                "white-box, gradient canaries: " + str(self.white_box),
                "",
                "black-box, losses of records under the final model: " + str(self.black_box),
                "  One run's losses usually show 0: they are a weak attack, no sign of safety.",
                "",
                f"Each bound errs with probability {error:g}% at most, by itself.",
                verdict,
            ]
        )


def audit_training(
    model: "nn.Module",
    data: Dataset,
    config: TrainConfig,
    privacy: "PrivacyConfig",
    *,
    canaries: int = 1000,
    records: int | None = None,
    mislabel: bool = True,
    share: float | Sequence[float] = DEFAULT_SHARES,
    confidence: float = 0.95,
    method: str = "one-run",
    seed: int = 0,
    spread: int = 1,
) -> TrainingAudit:
    """Trains once with canaries, and bounds epsilon from below by what they show.

    The training is that of `dpnorm.train`, with its clipping, noise and account. Two kinds of
    canaries are in it, each by a fair coin of its own: gradients of one coordinate
    (`GradientCanaries`), which the auditor looks for in every release, and training records, which
    the auditor looks for in the losses of the final model. How many guesses are made, and which
    ends of the scores they come from, is fixed before the training.

    **Guarantee.** As `audit`, of each bound by itself. It is about the mechanism that was run, with
    these canaries: a bound below the claim proves nothing.

    The model is trained for the audit and is not returned: it has learned noise.

    Args:
        model: a classifier; it is not changed.
        data: the records.
        config: the settings; gradients of single records are needed, so mode "hooks",
            "lean" or "functorch".
        privacy: what is claimed.
        canaries: m, of gradients; at most as many as trainable parameters.
        records: how many training records are canaries; default half of them, 1000 at most.
        mislabel: whether these get a random wrong label, which makes them easier to find.
        share: of the canaries of each kind that is guessed, in (0, 1], half of it from each end.
            Several shares are judged together, as in `GuessPlan.two_sided`.
        confidence: of each bound.
        method: "one-run" or "gaussian", see `audit`.
        seed: of all coins and labels of the audit. The training has its own seed, or none.
        spread: coordinates of a gradient canary, each in another parameter tensor; 2 or more to see
            whether tensors are clipped one by one (`GradientCanaries`).

    Raises:
        InputError: numbers that do not fit, another gradient mode, a batch larger than the records.
        RefusedError: as `train`.
    """
    mode = config.grad_sample_mode
    if mode not in AUDITED_MODES:
        raise InputError(
            f"grad_sample_mode is {mode!r}: canaries stand among the gradients of single records; "
            "take 'hooks', 'lean' or 'functorch'"
        )
    total = len(data.train)
    chosen = min(total // 2, _MOST_RECORDS) if records is None else records
    if not 2 <= chosen <= total:
        raise InputError(f"records is {chosen}: from 2 to the {total} training records are needed")
    plans = GuessPlan.two_sided(canaries, share), GuessPlan.two_sided(chosen, share)
    places, inside, planted = _record_canaries(data, chosen, mislabel, seed)
    keep = np.ones(total, dtype=bool)
    keep[places[~inside]] = False
    part = dataclasses.replace(planted, train=planted.train.select(torch.from_numpy(keep)))
    expected = total - chosen / 2
    config = config.pinned(int(expected), privacy)
    privacy = expected_privacy(privacy, config, expected)
    assert privacy.sampling_rate is not None
    observer = GradientCanaries(canaries, privacy.sampling_rate, seed=seed, spread=spread)
    trained = train(model, part, config, privacy, observer=observer)
    assert trained.statement is not None
    level: dict[str, Any] = {
        "delta": privacy.delta,
        "confidence": confidence,
        "method": method,
    }
    white = audit(plans[0], observer.scores(), observer.members(), **level)
    canary_records = planted.train.select(torch.from_numpy(places))
    scores = _log_odds(trained.model, canary_records.x, canary_records.y.numpy())
    black = audit(plans[1], scores, inside, **level)
    return TrainingAudit(
        claimed=float(trained.statement.epsilon),
        delta=privacy.delta,
        white_box=white,
        black_box=black,
        accuracy=float(trained.accuracy),
        gaussian_claim=privacy.sampling_rate == 1,
    )


def _record_canaries(
    data: Dataset, count: int, mislabel: bool, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], Dataset]:
    """Which records are canaries, which of them are in, and the data with their labels."""
    generator = np.random.default_rng([seed, 1])
    places = np.sort(generator.permutation(len(data.train))[:count])
    inside = generator.random(count) < 0.5
    if not mislabel:
        return places, inside, data
    y = data.train.y.clone()
    chosen = torch.from_numpy(places)
    wrong = torch.from_numpy(generator.integers(1, data.num_classes, size=count))
    y[chosen] = (y[chosen] + wrong) % data.num_classes
    return places, inside, dataclasses.replace(data, train=dataclasses.replace(data.train, y=y))


def _log_odds(
    model: "nn.Module", x: torch.Tensor, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    logits = observed_logits(model, x)[None]
    outlier = np.zeros(len(labels), dtype=bool)
    return log_odds(Pool(keep=~outlier[None], logits=logits, labels=labels, outlier=outlier))[
        0, :, 0
    ]
