"""What a private training is to guarantee, and how."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from dpnorm.config import Config


class PrivacyConfig(Config):
    """The privacy of one training under DP-SGD.

    Attributes:
        epsilon: the budget, of this training together with what its ledger holds already; the
            noise is calibrated to it. Give this or `noise_multiplier`.
        noise_multiplier: standard deviation of the noise in units of `clip`.
        delta: the probability with which the guarantee may fail; below 1 / (number of records).
        clip: the norm to which each record's gradient is clipped.
        accountant: "prv" (Gopi et al., arXiv 2106.02848), "rdp" or "pld" (Doroshenko et al., arXiv
            2207.04380; the tightest and the slowest); each is an upper bound.
        sampling_rate: probability with which a record is in a batch; default batch size / records.
            The noisy sum is divided by the batch size in any case, a constant.
        steps: number of steps; default epochs * ceil(1 / sampling rate).
        statistics_noise_ratio: noise of private statistics over that of the gradients, in units of
            the two clipping norms; for models with layers that release statistics.
        allow: "unproven" trains a model that `check` does not prove, "refuted" one that it refutes;
            the statement then says that its epsilon may be, or is, void.
        seed: makes sampling, noise, dropout and augmentation reproducible, which is for experiments
            only: whoever knows the seed can take the noise away. By default all come from the
            operating system.
    """

    epsilon: float | None = Field(None, gt=0)
    noise_multiplier: float | None = Field(None, gt=0, allow_inf_nan=False)
    delta: float = Field(1e-5, gt=0, lt=1)
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    accountant: Literal["prv", "rdp", "pld"] = "prv"
    sampling_rate: float | None = Field(None, gt=0, le=1)
    steps: int | None = Field(None, ge=1)
    statistics_noise_ratio: float = Field(4.0, gt=0, allow_inf_nan=False)
    allow: Literal["unproven", "refuted"] | None = None
    seed: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("give exactly one of epsilon and noise_multiplier")
        if self.epsilon is not None and not math.isfinite(self.epsilon):
            raise ValueError(
                f"epsilon is {self.epsilon}: for training without privacy pass privacy=None"
            )
        return self
