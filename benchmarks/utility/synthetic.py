"""Synthetic digits of MNIST's shape: what settings are tuned on, so that no private record is."""

import functools

import numpy as np
import torch
from scipy import ndimage

from dpnorm.data import Dataset, Records, load

SIDE = 28
TRAIN, TEST, PUBLIC = 4000, 800, 200
SEED = 0


@functools.cache
def synthetic_digits() -> Dataset:
    """As many images of 28x28 as mnist5k has, drawn from scikit-learn's 8x8 digits.

    Each is a digit of `digits` (train images from its train records, test images from its test
    records), enlarged to 20x20, turned by up to 12 degrees, scaled by up to 15%, moved by up to 2
    pixels on a black field, and sharpened to strokes, as MNIST's are.
    """
    digits = load("digits")
    generator = np.random.default_rng(SEED)

    def drawn(records: Records, count: int) -> Records:
        chosen = np.concatenate(
            [generator.permutation(len(records)) for _ in range(-(-count // len(records)))]
        )[:count]
        images = np.stack([_image(records.x[i, 0].numpy(), generator) for i in chosen])
        x = torch.from_numpy(images.astype(np.float32))[:, None]
        return Records(x, records.y[torch.from_numpy(chosen)])

    return Dataset(
        name="synthetic digits",
        train=drawn(digits.train, TRAIN),
        test=drawn(digits.test, TEST),
        public=drawn(digits.public, PUBLIC),
        num_classes=10,
        shape=(1, SIDE, SIDE),
        scaling="from [0, 1] to [-1, 1]",
        bounds=(-1.0, 1.0),
    )


def _image(digit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A digit (8, 8) in [-1, 1] as an image (28, 28) in [-1, 1]."""
    large = ndimage.zoom((digit + 1) / 2, 20 / 8 * generator.uniform(0.85, 1.15), order=3)
    large = ndimage.rotate(large, generator.uniform(-12, 12), reshape=False, order=1)
    field = np.zeros((SIDE + 8, SIDE + 8))
    top, left = ((len(field) - size) // 2 + generator.integers(-2, 3) for size in large.shape)
    field[top : top + large.shape[0], left : left + large.shape[1]] = large
    strokes = 1 / (1 + np.exp(-12 * (field[4:-4, 4:-4] - 0.5)))
    return 2 * (strokes - strokes.min()) / (strokes.max() - strokes.min()) - 1
