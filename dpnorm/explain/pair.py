"""A pair of datasets that differ by one record, and what that record does to a training step."""

import copy

import torch
from torch import Tensor, nn

from dpnorm.data import Dataset, load
from dpnorm.detection.sampled import sampled_modules
from dpnorm.gradients import per_record_gradients
from dpnorm.training.networks import build_network

RECORDS = 64  # in the smaller dataset
CLIP = 1
ROUNDING = 1e-5  # by which float32 sums in another order differ
_BRIGHTNESS = 10.0  # of the added record, in those of ordinary ones
_SEED = 0


class Pair:
    """D, its one record more, and a network that neither has trained.

    Attributes:
        x: the 64 records of D and, last, the added one: noise, ten times as bright as a digit.
        y: their labels.
        another: (1, *shape), one more ordinary record.
        network: in training mode.
    """

    def __init__(self, variant: str) -> None:
        data: Dataset = load("digits")
        generator = torch.Generator().manual_seed(_SEED)
        noise = torch.randn(1, *data.shape, generator=generator)
        self.another = data.train.x[RECORDS : RECORDS + 1]
        self.x = torch.cat([data.train.x[:RECORDS], _BRIGHTNESS * noise])
        self.y = torch.cat([data.train.y[:RECORDS], torch.zeros(1, dtype=data.train.y.dtype)])
        torch.manual_seed(_SEED)
        self.network = build_network("lenet", variant, data).train()

    def normalized(self, records: int) -> Tensor:
        """(records, features): what the first normalization layer makes of the first records."""
        seen: list[Tensor] = []
        network = copy.deepcopy(self.network)  # a forward pass may move its statistics
        _, normalization, *_ = network.children()
        normalization.register_forward_hook(lambda layer, given, output: seen.append(output))
        with torch.no_grad():
            network(self.x[:records])
        return seen[0].flatten(1)

    def gradients(self, records: int) -> Tensor:
        """(records, parameters): the gradient that DP-SGD clips, one a record."""
        return gradients(self.network, self.x[:records], self.y[:records])


def gradients(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(records, parameters): of each record's loss, as Opacus's samplers compute it.

    The network stays as it is, its buffers too.
    """
    network = copy.deepcopy(network)
    found = per_record_gradients(
        network,
        lambda: network(x),
        lambda output: nn.functional.cross_entropy(output, y),
        list(sampled_modules(network)),
        records=len(x),
    )
    return torch.cat([g.reshape(len(x), -1) for g in found.values()], dim=1).double()


def clipped_sum(gradients: Tensor, clip: float = CLIP) -> Tensor:
    """(parameters): the sum of gradients of which none is longer than `clip`."""
    norms = gradients.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return (gradients * (clip / norms).clamp(max=1.0)).sum(0)


def moved(before: Tensor, after: Tensor) -> Tensor:
    """By what share of its length each row moved."""
    return (after - before).norm(dim=1) / before.norm(dim=1)
