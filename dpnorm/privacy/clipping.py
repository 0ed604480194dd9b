"""How each record's gradient is clipped: as a whole, parameter by parameter, or adaptively."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from dpnorm.errors import InputError
from dpnorm.privacy.arguments import is_number

Clipping = Literal["flat", "per_layer", "adaptive"]
CLIPPINGS = ("flat", "per_layer", "adaptive")
_SLACK = 1e-6  # beside a norm, as in Opacus: a norm is never divided by 0


class FlatClipping:
    """Scales a record's whole gradient so that its norm is at most the clipping norm."""

    name: Clipping = "flat"
    apart = False  # whether each parameter has a norm of its own
    count_std = 0.0  # of the noise of what is counted

    def factors(self, norms: Tensor, clip: float) -> list[Tensor]:
        """What each part of each record's gradient is multiplied by.

        Args:
            norms: (parts, records) of the gradients; a part is one parameter or several, and one
                where `apart` says so.
            clip: the clipping norm.

        Returns:
            For each part a (records,) tensor.
        """
        factor = (clip / (norms.norm(dim=0) + _SLACK)).clamp(max=1.0)
        return [factor] * len(norms)

    def gradient_noise(self, noise: float) -> float:
        """The noise of the gradients, of what this kind of clipping leaves for them."""
        return noise

    def take_count(self) -> float | None:
        """What was counted in the logical batch, or None; counting begins anew."""
        return None


class PerLayerClipping(FlatClipping):
    """Clips each parameter's gradient to a norm of its own.

    The clipping norm of the whole is the root of the sum of their squares; where a scheduler
    changes it, each parameter's norm changes with it.

    Args:
        norms: one for each parameter, in the optimizer's order.
    """

    name: Clipping = "per_layer"
    apart = True

    def __init__(self, norms: Sequence[float]) -> None:
        self.total = math.hypot(*norms)
        self._shares = [norm / self.total for norm in norms]

    def factors(self, norms: Tensor, clip: float) -> list[Tensor]:
        return [
            (share * clip / (norm + _SLACK)).clamp(max=1.0)
            for share, norm in zip(self._shares, norms, strict=True)
        ]


class AdaptiveClipping(FlatClipping):
    """Moves the clipping norm to a quantile of the records' norms, by a noisy count.

        clip <- clip * exp(-learning_rate * (noisy share of records below clip - quantile))

    Each record adds 1/2 to the count or takes 1/2 from it, as it is below the clipping norm or not,
    so that one record moves it by 1/2. It is released with the gradients; the noise of the count is
    paid out of the same total. The count is divided by the expected number of records: Opacus
    divides by the number that was drawn, without noise, which releases that number.

    Args:
        target_unclipped_quantile: the share of records that are to be left unclipped.
        clipbound_learning_rate: how fast the clipping norm moves.
        max_clipbound: the largest clipping norm.
        min_clipbound: the smallest one.
        unclipped_num_std: standard deviation of the noise of the count.
        expected: the expected number of records in a batch.

    Source: Andrew et al., arXiv 1905.03871, algorithm 1 and theorem 1.
    """

    name: Clipping = "adaptive"

    def __init__(
        self,
        *,
        target_unclipped_quantile: float,
        clipbound_learning_rate: float,
        max_clipbound: float,
        min_clipbound: float,
        unclipped_num_std: float,
        expected: float,
    ) -> None:
        numbers = {
            "target_unclipped_quantile": target_unclipped_quantile,
            "clipbound_learning_rate": clipbound_learning_rate,
            "max_clipbound": max_clipbound,
            "min_clipbound": min_clipbound,
            "unclipped_num_std": unclipped_num_std,
        }
        for what, number in numbers.items():
            if not is_number(number):
                raise InputError(f"{what} is {number!r}: it is to be a finite number")
        if not 0 < min_clipbound < max_clipbound:
            raise InputError(
                f"min_clipbound is {min_clipbound} and max_clipbound {max_clipbound}: it takes "
                "0 < min_clipbound < max_clipbound"
            )
        if not (
            0 <= target_unclipped_quantile <= 1
            and unclipped_num_std >= 0
            and clipbound_learning_rate >= 0
        ):
            raise InputError(
                f"target_unclipped_quantile is {target_unclipped_quantile}, unclipped_num_std "
                f"{unclipped_num_std} and clipbound_learning_rate {clipbound_learning_rate}: the "
                "first is to be in [0, 1], the others at least 0"
            )
        self._quantile = target_unclipped_quantile
        self._speed = clipbound_learning_rate
        self._bounds = (min_clipbound, max_clipbound)
        self.count_std = unclipped_num_std
        self._expected = expected
        self._count = 0.0

    def factors(self, norms: Tensor, clip: float) -> list[Tensor]:
        found = super().factors(norms, clip)
        below = int((found[0] >= 1).sum())
        self._count += below - len(found[0]) / 2
        return found

    def gradient_noise(self, noise: float) -> float:
        if noise == 0:
            return 0.0
        left = noise**-2 - (2 * self.count_std) ** -2 if self.count_std > 0 else -math.inf
        if left <= 0:
            raise InputError(
                f"unclipped_num_std is {self.count_std}: it is to be above half of the noise "
                f"multiplier {noise:.4g} of the gradients, which pays for the count too"
            )
        return left**-0.5

    def take_count(self) -> float:
        count, self._count = self._count, 0.0
        return count

    def moved(self, clip: float, released: float) -> float:
        """The next clipping norm.

        Args:
            clip: the present one.
            released: the noisy count.
        """
        share = released / self._expected + 0.5
        moved = clip * math.exp(-self._speed * (share - self._quantile))
        return min(max(moved, self._bounds[0]), self._bounds[1])
