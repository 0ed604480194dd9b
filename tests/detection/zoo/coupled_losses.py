"""Losses that couple records, or are not the mean or sum that they are said to be."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.detection.zoo.case import Case, Zoo, averaged, classifier, flat, labels, summed

ZOO = Zoo()


def weighted(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, weight=torch.tensor([0.1, 1.0, 5.0]))


def contrastive(output: Tensor, target: Tensor) -> Tensor:
    unit = F.normalize(output)
    return F.cross_entropy(unit @ unit.T / 0.1, torch.arange(len(output)))


def hardest(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none").topk(3).values.mean()


def ignoring(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, ignore_index=0)


def selecting(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output[target > 0], target[target > 0])


def batch_hard(output: Tensor, target: Tensor) -> Tensor:
    distance = torch.cdist(output, output)
    same = target[:, None] == target
    far = torch.where(same, distance, distance.new_tensor(-1)).amax(1)
    near = torch.where(same, distance.new_tensor(1e9), distance).amin(1)
    return F.relu(far - near + 1).mean()


for _loss in (weighted, contrastive, hardest, ignoring, selecting, batch_hard, summed):
    ZOO[f"loss: {_loss.__name__}"] = Case(classifier, flat, _loss, labels)
ZOO["loss: averaged told sum"] = Case(classifier, flat, averaged, labels, reduction="sum")
