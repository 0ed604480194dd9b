"""Patches of the two photographs that ship with scikit-learn: images foreign to any data set."""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PATCH_SIZE = 64  # pixels that a patch is resized to
_SIDES = (64, 256)  # pixels, of the squares that are cut out
_MIN_CONTRAST = (
    0.1  # standard deviation of its gray values: a patch of plain sky would be much like the next
)


def patches(count: int, rng: np.random.Generator) -> Tensor:
    """Returns random square patches [count, 3, 64, 64] with values in [0, 1]."""
    photographs = _photographs()
    found: list[Tensor] = []
    while len(found) < count:
        photograph = photographs[rng.integers(len(photographs))]
        side = int(rng.integers(_SIDES[0], _SIDES[1] + 1))
        top = int(rng.integers(photograph.shape[1] - side + 1))
        left = int(rng.integers(photograph.shape[2] - side + 1))
        patch = photograph[:, top : top + side, left : left + side]
        if patch.mean(dim=0).std() >= _MIN_CONTRAST:
            resized = F.interpolate(
                patch[None],
                size=(PATCH_SIZE, PATCH_SIZE),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            found.append(resized[0].clamp(0, 1))
    return torch.stack(found)


@functools.cache
def _photographs() -> tuple[Tensor, ...]:
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images  # uint8 [427, 640, 3] each
    return tuple(torch.from_numpy(image / 255.0).float().permute(2, 0, 1) for image in images)
