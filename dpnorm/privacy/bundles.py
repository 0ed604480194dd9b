"""Parameters whose records' gradients are clipped and added up in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpnorm.gradients.factors import Samples, weighted_sum

SMALL = 1024  # numbers of a parameter: a call costs more than to copy so many for each record


_Small = list[tuple[nn.Parameter, Tensor]]


@dataclass(frozen=True)
class Bundle:
    """Some parameters and their records' gradients, (records, numbers) where they are several."""

    parameters: tuple[nn.Parameter, ...]
    samples: Samples

    def sums(self, samples: Samples, weights: Tensor) -> list[Tensor]:
        """For each parameter sum_i weights[i] * gradient of record i, of its shape.

        Args:
            samples: these, or some of them blanked.
            weights: (records,).
        """
        total = weighted_sum(samples, weights, self.parameters[0].dtype)
        if len(self.parameters) == 1:
            return [total.view(self.parameters[0].shape)]
        parts = total.flatten().split([p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]


def bundled(
    parameters: Sequence[nn.Parameter], samples: Sequence[Samples], *, apart: bool
) -> list[Bundle]:
    """Every parameter once, small ones of one kind together.

    Args:
        parameters: of an optimizer.
        samples: of each.
        apart: whether each parameter is clipped by itself.
    """
    alone: list[Bundle] = []
    small: dict[tuple[torch.device, torch.dtype, torch.dtype], _Small] = {}
    for p, found in zip(parameters, samples, strict=True):
        if apart or not isinstance(found, Tensor) or p.numel() > SMALL:
            alone.append(Bundle((p,), found))
        else:
            small.setdefault((p.device, p.dtype, found.dtype), []).append((p, found))
    for those in small.values():
        rows = [found.reshape(found.shape[0], p.numel()) for p, found in those]
        together = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        alone.append(Bundle(tuple(p for p, _ in those), together))
    return alone
